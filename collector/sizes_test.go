package collector

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Shared memory comes from the statistics, or from core.shmmem in KiB: in bytes it does not
// fit into the int through which it is printed.
func TestSharedMemory(t *testing.T) {
	const kib = `{"total":5120000,"free":5112707,"used":5109,"real_used":7291,"max_used":7292,"fragments":9}`
	const statistics = `["shmem:fragments = 9","shmem:free_size = 5235413488","shmem:max_used_size = 7466633","shmem:real_used_size = 7466512","shmem:total_size = 5242880000","shmem:used_size = 5232480"]`
	exact := "shm_fragments 9\nshm_free_bytes 5235413488\nshm_max_used_bytes 7466633\nshm_real_used_bytes 7466512\nshm_total_bytes 5242880000\nshm_used_bytes 5232480\n"
	rounded := "shm_total_bytes 5242880000\nshm_free_bytes 5235411968\nshm_used_bytes 5231616\nshm_real_used_bytes 7465984\nshm_max_used_bytes 7467008\nshm_fragments 9\n"
	for _, tc := range []struct{ name, statistics, shmmem, want string }{
		{"kex is loaded", statistics, kib, exact},
		{"kex is not loaded", "", kib, rounded},
		{"statistics without the group", `["core:x = 1"]`, kib, rounded},
		{"statistics fail", "fault: Out of memory", kib, rounded},
	} {
		t.Run(tc.name, func(t *testing.T) {
			replies := map[string]string{
				uptimeMethod: uptimeOf30, "core.info": `{"version":"kamailio 5.6.3","compiler":"gcc"}`, "core.psx": `[]`, "core.shmmem": tc.shmmem,
			}
			if tc.statistics != "" {
				replies[statisticsMethod] = tc.statistics
			}
			got, err := emitted(t, newCore(), replies)
			_, got, _ = strings.Cut(got, "build_info 5.6.3,gcc 1\n")
			if want := written(prefixed("core_", tc.want)); got != want || err != nil {
				t.Errorf("%v, got\n%swant\n%s", err, got, want)
			}
		})
	}
}

// written formats the values of the samples as emitted does.
func written(samples string) string {
	return regexp.MustCompile(`[0-9]+\n`).ReplaceAllStringFunc(samples, func(value string) string {
		f, _ := strconv.ParseFloat(strings.TrimSpace(value), 64)
		return fmt.Sprintln(f)
	})
}

const uptimeOf30 = `{"now":"Mon Nov 23 04:05:05 2026","up_since":"Mon Nov 23 04:04:35 2026","uptime":30}`

// The sizes of private memory are printed through 32 bits: from 4 GiB on, they look
// plausible but are wrong.
func TestPrivateMemory(t *testing.T) {
	row := func(total int64) string {
		return fmt.Sprintf(`[{"entry":0,"pid":1,"rank":0,"used":3653800,"free":%d,"real_used":4268552,"total_size":%d,"total_frags":26,"desc":"timer"}]`, total-4268552, total)
	}
	sizes := func(total int64) string {
		return fmt.Sprintf("used_bytes timer,0 3653800\nfree_bytes timer,0 %d\nreal_used_bytes timer,0 4268552\ntotal_bytes timer,0 %d\nfragments timer,0 26\n", total-4268552, total)
	}
	for _, tc := range []struct{ args, reply, want string }{
		{`["kamailio","-DD"]`, row(8 << 20), sizes(8 << 20)},
		{`["kamailio","-M","4095","-DD"]`, row(4095 << 20), sizes(4095 << 20)},
		{`["kamailio","-M","4096"]`, row(0), "fragments timer,0 26\n"},
		{`["kamailio","-M5000","-A","-M"]`, row(904 << 20), "fragments timer,0 26\n"},
		{`["kamailio","-M","5000","-M","8"]`, row(8 << 20), sizes(8 << 20)},
		{"fault: Method Not Found", row(8 << 20), sizes(8 << 20)},
		{"", row(8 << 20), sizes(8 << 20)},
	} {
		t.Run(tc.args, func(t *testing.T) {
			replies := map[string]string{"pkg.stats": tc.reply}
			if tc.args != "" {
				replies[argMethod] = tc.args
			}
			got, err := emitted(t, newPkg(), replies)
			if want := written(prefixed("pkg_", tc.want)); got != want || err != nil {
				t.Errorf("%v, got\n%swant\n%s", err, got, want)
			}
		})
	}
}

// Zeros of usrloc may mean that it keeps no registrations in memory.
func TestUsrlocInMemory(t *testing.T) {
	zeros := `["usrloc:registered_users = 0","usrloc:location_users = 0","usrloc:location_contacts = 0","usrloc:location_expires = 0"]`
	all := func(users, contacts, expires int) string {
		return fmt.Sprintf("in_memory 1\nregistered_users %d\nusers location %d\ncontacts location %d\nexpired_contacts_total location %d\n", users, users, contacts, expires)
	}
	for _, tc := range []struct{ name, statistics, dbUsers, want string }{
		{"no contacts, no database", zeros, "fault: Command is not supported in db_mode=0", all(0, 0, 0)},
		{"no contacts, no database module", zeros, `modules: ["tm","usrloc","dbg_"]`, all(0, 0, 0)},
		{"no contacts, database module loaded", zeros, `modules: ["tm","usrloc","db_sqlite"]`, "in_memory 0\n"},
		{"no contacts, or all in the database", zeros, "fault: Not enough parameters (table to lookup)", "in_memory 0\n"},
		{"a build without the method", zeros, "", "in_memory 0\n"},
		{"somebody", `["usrloc:registered_users = 3","usrloc:location_users = 3","usrloc:location_contacts = 4","usrloc:location_expires = 0"]`, "fault: must not be asked", all(3, 4, 0)},
		{"an earlier client exists", `["usrloc:registered_users = 0","usrloc:location_users = 0","usrloc:location_contacts = 0","usrloc:location_expires = 2"]`, "", all(0, 0, 2)},
		{"up to 5.3", `["usrloc:registered_users = 3","usrloc:location-users = 3","usrloc:location-contacts = 4","usrloc:location-expires = 1"]`, "", all(3, 4, 1)},
		{"no table yet", `["usrloc:registered_users = 0"]`, "fault: Command is not supported in db_mode=0", "in_memory 1\nregistered_users 0\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			replies := map[string]string{statisticsMethod: tc.statistics}
			if modules, is := strings.CutPrefix(tc.dbUsers, "modules: "); is {
				replies[modulesMethod] = modules
			} else if tc.dbUsers != "" {
				replies[dbUsersMethod] = tc.dbUsers
			}
			got, err := emitted(t, newUsrloc(), replies)
			if want := prefixed("usrloc_", tc.want); got != want || err != nil {
				t.Errorf("%v, got\n%swant\n%s", err, got, want)
			}
		})
	}
	if got, err := emitted(t, newUsrloc(), map[string]string{statisticsMethod: `["core:x = 1"]`}); got != "" || err != ErrNoData { //nolint:errorlint // it is never wrapped
		t.Errorf("without usrloc: %q, %v", got, err)
	}
}

// Once usrloc has counted something, it is known to keep registrations in memory. Its zeros
// are then correct until Kamailio restarts, and the check is not repeated.
func TestUsrlocInMemoryIsLearned(t *testing.T) {
	g := newGuardedServer(t)
	g.c.use([]Collector{newUsrloc()})
	g.HandleFault(dbUsersMethod, 500, "Not enough parameters (table to lookup)")
	g.contacts(0)
	g.after(0, 0, "usrloc_in_memory = 0", "no usrloc_contacts")
	g.after(0, 0, "usrloc_in_memory = 0", "no usrloc_contacts")
	g.contacts(5)
	g.after(0, 0, "usrloc_in_memory = 1", "usrloc_contacts location = 5")
	g.contacts(0)
	g.after(0, 0, "usrloc_in_memory = 1", "usrloc_contacts location = 0")
	if n := g.CallCount(dbUsersMethod); n != 1 {
		t.Errorf("%s was asked %d times", dbUsersMethod, n)
	}
	g.startedAt("05:00:00")
	g.after(time.Second, 0, "usrloc_in_memory = 0", "no usrloc_contacts")
	if n := g.CallCount(dbUsersMethod); n != 2 {
		t.Errorf("%s was asked %d times", dbUsersMethod, n)
	}
}

// Counters that Kamailio prints through an int, and differences of sums that are briefly
// negative.
func TestNumbersOf32Bits(t *testing.T) {
	for _, tc := range []struct {
		collector     Collector
		method, reply string
		want          string
	}{
		{slModule.Collector(), "sl.stats", `{"200":-2147483648,"404":7}`, "sl_replies_sent_by_code_total 200 2147483648\nsl_replies_sent_by_code_total 404 7\n"},
		{tmModule.Collector(), "tm.stats", `{"current":-1,"waiting":-2,"total":-1}`, "tm_transactions_total 4294967295\n"},
		{tmxModule.Collector(), statisticsMethod, `["tmx:active_transactions = 18446744073709551615","tmx:inuse_transactions = 3"]`, "tmx_transactions_in_use 3\n"},
		{tcpModule.Collector(), "core.tcp_info", `{"write_queued_bytes":-2147483648}`, "tcp_write_queue_bytes 2147483648\n"},
		{tlsModule.Collector(), tlsInfoMethod, `{"clear_text_write_queued_bytes":-2147483648}`, "tls_write_queue_bytes 2147483648\n"},
		{mtreeModule.Collector(), "mtree.summary", `[{"table":"a","item":{"memsize":-2147483648}}]`, "mtree_memory_bytes a 2147483648\n"},
	} {
		t.Run(tc.method, func(t *testing.T) {
			got, err := emitted(t, tc.collector, map[string]string{tc.method: tc.reply})
			if want := written(tc.want); got != want || err != nil {
				t.Errorf("%v, got\n%swant\n%s", err, got, want)
			}
		})
	}
}
