package kamrpc

import (
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestPriceList(t *testing.T) {
	list := PriceList()
	if !slices.IsSortedFunc(list, func(a, b Price) int { return strings.Compare(a.Method, b.Method) }) {
		t.Error("not sorted by method")
	}
	name := regexp.MustCompile(`^[a-z]+\.[A-Za-z_]+$`)
	seen := map[string]bool{}
	for _, p := range list {
		if seen[p.Method] {
			t.Errorf("%s: twice", p.Method)
		}
		seen[p.Method] = true
		if !name.MatchString(p.Method) {
			t.Errorf("%q: not the name of a method", p.Method)
		}
		if p.Note == "" {
			t.Errorf("%s: no note: where was its cost looked up?", p.Method)
		}
		if (p.Cost == Constant) != (p.Of == "") {
			t.Errorf("%s: a cost that grows, and nothing else, says with what", p.Method)
		}
		if p.Size != "" && p.Cost != Growing {
			t.Errorf("%s: a size tells about a reply that grows", p.Method)
		}
		if got, ok := PriceOf(p.Method); !ok || !reflect.DeepEqual(got, p) {
			t.Errorf("PriceOf(%s): %+v, %t", p.Method, got, ok)
		}
	}
	for _, dangerous := range []string{"core.kill", "cfg.sets", "dispatcher.add", "uac.reg_add", "htable.flush", "ul.flush", "corex.shm_summary", "tls.kill", "", "core.Version"} {
		if _, ok := PriceOf(dangerous); ok {
			t.Errorf("%q has a price", dangerous)
		}
	}
	// The caller may modify the returned list.
	list[0].Method = "x"
	if PriceList()[0].Method == "x" {
		t.Error("one caller can change the list of another")
	}
}
