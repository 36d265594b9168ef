//go:build linux

package kamrpc_test

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc/kamrpctest/kamailiotest"
)

// asked are the parameters for methods that need some.
var asked = map[string][][]any{
	"cfg.get":                 {{"core", "debug"}, {"no", "such"}},
	"dialplan.dump":           {{1}, {99}},
	"rtpengine.show":          {{"all"}, {"udp:nowhere"}},
	"core.shmmem":             {{}, {"k"}, {1}},
	"dispatcher.list":         {{}, {"full"}, {"short"}},
	"htable.dump":             {{"trunks"}, {"calls"}, {"no such table"}},
	"dlg.dlg_list":            {{"no such call"}},
	"dlg.profile_get_size":    {{"caller"}, {"no such profile"}},
	"pike.top":                {{}, {"ALL"}},
	"stats.get_statistics":    {{"all"}, {"tm:", "core:"}, {"no such statistic"}},
	"secfilter.print":         {{"ua"}, {"dst"}},
	"permissions.addressDump": {{}, {1}, {99}},
	"ul.dump":                 {{}, {"brief"}},
}

// alike lists replies that differ over BINRPC but can be read all the same: a repeated
// member instead of a list of objects, numbers instead of true and false, and all rows
// instead of the last.
var alike = map[string]bool{"core.sockets_list": true, "rtpengine.show": true, "keepalive.list": true, "rl.get_pipes": true}

// moving matches values that differ between calls. sl counts each reply over HTTP.
var moving = regexp.MustCompile(`/(now|uptime|free|used|real_used|max_used|fragments|total_frags|Expires|Last-Keepalive|timeout|diff_expires|timer_expires|recheck_ticks|last_counter|unused_intervals)$|/shmem:|^sl.stats/200$|/sl:(200|sent)_replies$`)

// A reply that exceeds ctl's buffers is an error, whether Kamailio reports it or sends a
// part. If there is another transport, it is used immediately.
func TestOutgrownKamailio(t *testing.T) {
	for _, version := range kamailiotest.AllVersions(t) {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			s := kamailiotest.Start(t, kamailiotest.Config{Version: version})
			for i := range 1100 {
				s.RPC(t, "ul.add", "location", fmt.Sprintf("user%d@example.com", i), fmt.Sprintf("sip:user%d@192.0.2.1:5060", i), 3600, 1.0, "", 0, 0, 5951)
			}
			uri := "binrpc+unix://" + s.CtlPath
			for _, call := range [][]any{{"ul.dump", "brief"}, {"ul.dump"}, {"stats.get_statistics", "all", "all", "all", "all", "all", "all", "all", "all"}} {
				t.Run(fmt.Sprint(call...), func(t *testing.T) {
					method, params := call[0].(string), call[1:]
					before := s.LogLines()
					v, err := client(t, nil, uri).Call(within(t, patience), method, params...)
					t.Logf("%d lines logged", s.LogLines()-before)
					if !errors.Is(err, kamrpc.ErrOutgrown) {
						t.Errorf("%d, %v", v.Len(), err)
					}
					v, err = client(t, nil, uri, s.HTTPURL).Call(within(t, patience), method, params...)
					if err != nil || v.Len() == 0 {
						t.Errorf("with HTTP as a second transport: %d, %v", v.Len(), err)
					}
				})
			}
		})
	}
}

// The result does not depend on the transport.
func TestBINRPCIsJSON(t *testing.T) {
	for _, version := range kamailiotest.AllVersions(t) {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			s := kamailiotest.Start(t, kamailiotest.Config{Version: version, Traffic: true})
			json := client(t, nil, s.HTTPURL)
			binrpc := client(t, nil, "binrpc+unix://"+s.CtlPath)
			compared := 0
			for _, price := range kamrpc.PriceList() {
				if price.Effect != kamrpc.Read {
					continue
				}
				calls := asked[price.Method]
				if calls == nil {
					calls = [][]any{{}}
				}
				for _, params := range calls {
					t.Run(fmt.Sprint(price.Method, params), func(t *testing.T) {
						_, err := json.Call(within(t, patience), price.Method, params...)
						if alike[price.Method] || version == "5.4" && price.Method == "ul.dump" { // there HashID, Methods and Q are signed over JSON-RPC only
							t.Skip("not the very same: see alike")
						}
						if errors.Is(err, kamrpc.ErrDangerous) || errors.Is(err, kamrpc.ErrMethodNotFound) || strings.HasPrefix(price.Method, "drouting.") {
							t.Skipf("not on this server, or only by its script: %v", err)
						}
						compared++
						settles(t, func() string { // the demo's calls start and end
							want, wantErr := json.Call(within(t, patience), price.Method, params...)
							got, err := binrpc.Call(within(t, patience), price.Method, params...)
							differences := differ(price.Method, got, want)
							if sameError(err, wantErr) && len(differences) == 0 {
								return ""
							}
							return fmt.Sprintf("errors %v and %v, %d differences:\n%s", err, wantErr, len(differences), strings.Join(differences[:min(len(differences), 10)], "\n"))
						})
					})
				}
			}
			if compared < 20 {
				t.Errorf("%d calls compared: too few to be a test", compared)
			}
		})
	}
}

func sameError(a, b error) bool {
	var x, y *kamrpc.Fault
	if errors.As(a, &x) && errors.As(b, &y) {
		return x.Code == y.Code && x.Message == y.Message
	}
	return a == nil && b == nil
}

// differ lists the paths at which two values differ.
func differ(path string, got, want kamrpc.Value) []string {
	switch {
	case moving.MatchString(path):
		return nil
	case got.Kind() == kamrpc.Number && want.Kind() == kamrpc.Number:
		g, _ := got.Float()
		w, _ := want.Float()
		if math.Abs(g-w) < 0.00101 { // BINRPC truncates to thousandths, JSON rounds to millionths
			return nil
		}
	case got.Kind() == want.Kind() && got.Text() == want.Text() && got.Len() == want.Len():
		var differences []string
		theirs := slices.Collect(want.Members())
		i := 0
		for m := range got.Members() {
			name := m.Name
			if got.Kind() == kamrpc.Array {
				name, _, _ = strings.Cut(m.Value.Text(), " = ")
			}
			if m.Name != theirs[i].Name {
				return append(differences, fmt.Sprintf("%s: member %q, want %q", path, m.Name, theirs[i].Name))
			}
			differences = append(differences, differ(path+"/"+name, m.Value, theirs[i].Value)...)
			i++
		}
		return differences
	}
	return []string{fmt.Sprintf("%s: kind %d %q of %d, want kind %d %q of %d", path, got.Kind(), got.Text(), got.Len(), want.Kind(), want.Text(), want.Len())}
}
