//go:build linux

package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest/kamailiotest"
)

func number(t *testing.T, page, sample string) float64 {
	t.Helper()
	n, err := strconv.ParseFloat(value(page, sample), 64)
	if err != nil {
		t.Fatalf("%s is %q", sample, value(page, sample))
	}
	return n
}

const mib = 1 << 20

// TestMemorySizesOfARealKamailio checks large memory sizes: a value that does not fit
// into 32 bits must be right or omitted. Memory is only reserved, so that large sizes
// cost the tests nothing.
func TestMemorySizesOfARealKamailio(t *testing.T) {
	withoutKex := func(config string) string {
		config = strings.Replace(config, `loadmodule "kex.so"`, "", 1)
		// Replace the functions of kex in the configuration.
		return regexp.MustCompile(`\b(setbflag|isbflagset)\([^)]*\)`).ReplaceAllString(config, `is_method("INVITE")`)
	}
	for _, version := range kamailiotest.AllVersions(t) {
		for _, test := range []struct {
			shm, pkg int
			edit     func(string) string
		}{
			{shm: 3072, pkg: 3000},
			{shm: 4096, pkg: 4096},
			{shm: 5000, pkg: 5000},
			{shm: 8192, pkg: 8},
			{shm: 3072, edit: withoutKex},
			{shm: 4096, edit: withoutKex},
			{shm: 5000, edit: withoutKex},
			{shm: 8192, edit: withoutKex},
		} {
			t.Run(fmt.Sprintf("%s/shm %d, pkg %d, kex %t", version, test.shm, test.pkg, test.edit == nil), func(t *testing.T) {
				t.Parallel()
				server := kamailiotest.Start(t, kamailiotest.Config{Version: version, ShmMB: test.shm, PkgMB: test.pkg, Edit: test.edit})
				for name, uris := range map[string][]string{"unix": {"unix://" + server.SocketPath}, "http": {server.HTTPURL}, "binrpc": {"binrpc+unix://" + server.CtlPath}} {
					if uris[0] == "" {
						continue // Debian's configuration
					}
					t.Run(name, func(t *testing.T) {
						_, page := scrapePage(handlerFor(t, uriFlags(uris)...), "10")
						total, free := number(t, page, "kamailio_core_shm_total_bytes"), number(t, page, "kamailio_core_shm_free_bytes")
						used, realUsed, most := number(t, page, "kamailio_core_shm_used_bytes"), number(t, page, "kamailio_core_shm_real_used_bytes"), number(t, page, "kamailio_core_shm_max_used_bytes")
						if total != float64(test.shm*mib) {
							t.Errorf("total %.0f, with -m %d", total, test.shm)
						}
						if lost := total - free - realUsed; lost < 0 || lost > mib || used <= 0 || used > realUsed || most < realUsed-mib || most > 200*mib {
							t.Errorf("free %.0f, used %.0f, with overhead %.0f, at most %.0f", free, used, realUsed, most)
						}
						if number(t, page, "kamailio_core_shm_fragments") < 1 {
							t.Error("no fragments")
						}
						if f := failed.FindAllStringSubmatch(page, -1); f != nil {
							t.Errorf("collectors that failed: %s", names(f))
						}
						checkPkg(t, page, test.pkg, test.edit == nil)
					})
				}
			})
		}
	}
}

var pkgSize = regexp.MustCompile(`(?m)^kamailio_pkg_([a-z_]+)_bytes\{.*\} (.*)$`)

// checkPkg checks that the page has the sizes of all processes with -M MiB, or no sizes
// for 4 GiB and more.
func checkPkg(t *testing.T, page string, pkg int, kex bool) {
	t.Helper()
	sizes := pkgSize.FindAllStringSubmatch(page, -1)
	fragments := strings.Count(page, "\nkamailio_pkg_fragments{")
	switch {
	case !kex:
		if fragments > 0 {
			t.Error("private memory without kex")
		}
		return
	case fragments < 10:
		t.Errorf("fragments of %d processes", fragments)
	case pkg >= 4096:
		if len(sizes) > 0 {
			t.Errorf("with -M %d: %s", pkg, sizes[0][0])
		}
		return
	case len(sizes) != 4*fragments:
		t.Errorf("%d sizes of %d processes", len(sizes), fragments)
	}
	for _, s := range sizes {
		n, err := strconv.ParseFloat(s[2], 64)
		switch total := float64(pkg * mib); {
		case err != nil, n <= 0, n > total:
			t.Errorf("%s, with -M %d", s[0], pkg)
		case s[1] == "total" && n != total, s[1] == "real_used" && n > 8*mib, s[1] == "free" && n < total-8*mib:
			t.Errorf("%s, with -M %d", s[0], pkg)
		}
	}
}

// TestRegistrationsInTheDatabaseOfARealKamailio checks that registrations that usrloc
// keeps only in the database, and does not count, are not exported as 0.
func TestRegistrationsInTheDatabaseOfARealKamailio(t *testing.T) {
	const (
		users, contacts = `kamailio_usrloc_users{domain="location"}`, `kamailio_usrloc_contacts{domain="location"}`
		inMemory        = "kamailio_usrloc_in_memory"
		dumped          = `kamailio_usrloc_contacts_by_lifetime{domain="location",remaining="1800-3600"}`
		held            = `kamailio_scrape_skipped{collector="usrloc_contacts",method="ul.dump",reason="%s"}`
	)
	for _, version := range kamailiotest.AllVersions(t) {
		for _, test := range []struct {
			mode                  int
			empty, full, restored string // users: none, 20, and none again
			again                 string // for an exporter that has not seen the 20
		}{
			{0, "0", "20", "0", "0"},
			{1, "", "20", "0", ""},
			{2, "", "20", "0", ""},
			{3, "", "", "", ""},
		} {
			t.Run(fmt.Sprintf("%s/db_mode %d", version, test.mode), func(t *testing.T) {
				t.Parallel()
				db := locationDatabase(t)
				server := kamailiotest.Start(t, kamailiotest.Config{Version: version, Edit: func(config string) string {
					return strings.Replace(config, `loadmodule "usrloc.so"`, fmt.Sprintf(`loadmodule "db_sqlite.so"
loadmodule "usrloc.so"
modparam("usrloc", "db_url", "sqlite:///%s")
modparam("usrloc", "db_mode", %d)`, db, test.mode), 1)
				}})
				flags := uriFlags([]string{"unix://" + server.SocketPath, "fifo://" + server.FIFOPath + "?reply_dir=" + server.FIFOReplyDir})
				h := handlerFor(t, flags...)
				see := func(h http.Handler, want string) {
					t.Helper()
					_, page := scrapePage(h, "10")
					got := []string{value(page, users), value(page, contacts), value(page, inMemory), value(page, dumped),
						value(page, fmt.Sprintf(held, "unknown")), value(page, fmt.Sprintf(held, "size"))}
					wanted := []string{want, want, "1", want, "0", "0"}
					if want == "" {
						wanted = []string{"", "", "0", "", "1", "0"}
					}
					if fmt.Sprint(got) != fmt.Sprint(wanted) {
						t.Errorf("users, contacts, in memory, dumped, skipped as unknown and for size: %q, want %q", got, wanted)
					}
					if value(page, "kamailio_usrloc_registered_users") != "" && want == "" {
						t.Error("registered_users is there")
					}
					if f := failed.FindAllStringSubmatch(page, -1); f != nil {
						t.Errorf("collectors that failed: %s", names(f))
					}
				}
				aor := func(i int) string { return fmt.Sprintf("user%d@example.com", i) }
				lines := server.LogLines()
				see(h, test.empty)
				see(h, test.empty)
				if now := server.Logged(); len(now) != lines {
					t.Errorf("the first scrapes added to Kamailio's log:\n%s", strings.Join(now[lines:], ""))
				}
				for i := range 20 {
					server.RPC(t, "ul.add", "location", aor(i), fmt.Sprintf("sip:user%d@192.0.2.1:5060", i), 3000, 1.0, "", 0, 0, 5951)
				}
				if test.mode == 1 || test.mode == 3 {
					rows, err := exec.CommandContext(t.Context(), "sqlite3", db, "SELECT COUNT(*) FROM location").CombinedOutput()
					if string(rows) != "20\n" || err != nil {
						t.Fatalf("%s rows in the table location, %v", rows, err)
					}
				}
				see(h, test.full)
				for i := range 20 {
					server.RPC(t, "ul.rm", "location", aor(i))
				}
				see(h, test.restored)
				see(handlerFor(t, flags...), test.again)
			})
		}
	}
}

// locationDatabase makes an empty database in a place where a server in another root can
// see it too.
func locationDatabase(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "location-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	db := filepath.Join(dir, "kamailio.sqlite")
	const schema = "/usr/share/kamailio/db_sqlite/"
	out, err := exec.CommandContext(t.Context(), "sqlite3", db, "PRAGMA journal_mode=WAL",
		".read "+schema+"standard-create.sql", ".read "+schema+"usrloc-create.sql").CombinedOutput()
	if err != nil {
		t.Fatalf("%s%v", out, err)
	}
	return db
}

// TestShortListsAreBackAfterAHang checks that a Kamailio that hangs in the middle of a
// scrape spoils that scrape only: short lists are back at the next one.
func TestShortListsAreBackAfterAHang(t *testing.T) {
	paused := regexp.MustCompile(`(?m)^kamailio_scrape_skipped\{.*reason="pause"\} 1$`)
	for _, version := range kamailiotest.AllVersions(t) {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			server := kamailiotest.Start(t, kamailiotest.Config{Version: version})
			target, err := url.Parse(server.HTTPURL)
			if err != nil {
				t.Fatal(err)
			}
			// The proxy suspends Kamailio as soon as a list is called, until the exporter
			// gives up.
			var hang atomic.Bool
			way := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: "http", Host: target.Host}) }}
			way.ErrorHandler = func(http.ResponseWriter, *http.Request, error) {}
			between := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				request, err := io.ReadAll(r.Body)
				if err != nil {
					return
				}
				if strings.Contains(string(request), "dispatcher.list") && hang.CompareAndSwap(true, false) {
					server.Pause()
					<-r.Context().Done()
					server.Resume()
					return
				}
				r.Body = io.NopCloser(strings.NewReader(string(request)))
				way.ServeHTTP(w, r)
			}))
			defer between.Close()
			h := handlerFor(t, append(uriFlags([]string{between.URL + target.Path}), "--kamailio.timeout=3s")...)
			destinations := func() (page string, n int) {
				_, page = scrapePage(h, "10")
				return page, strings.Count(page, "\nkamailio_dispatcher_destination_up{")
			}
			page, n := destinations()
			if f := failed.FindAllStringSubmatch(page, -1); f != nil || n < 2 {
				t.Fatalf("%d destinations; failed: %s", n, names(f))
			}
			for range 2 { // occasional hangs do not count as consecutive ones
				hang.Store(true)
				page, there := destinations()
				if there != 0 || value(page, `kamailio_scrape_collector_success{collector="dispatcher"}`) != "0" {
					t.Errorf("%d destinations while Kamailio hangs: it did not", there)
				}
				page, there = destinations()
				if f := failed.FindAllStringSubmatch(page, -1); there != n || f != nil {
					t.Errorf("%d destinations after the hang, want %d; failed: %s", there, n, names(f))
				}
				if p := paused.FindAllString(page, -1); p != nil {
					t.Errorf("after the hang: %q", p)
				}
			}
		})
	}
}
