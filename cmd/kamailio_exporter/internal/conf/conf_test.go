package conf

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/units"
)

type limits struct {
	Timeout time.Duration     `yaml:"timeout"`
	Pause   *time.Duration    `yaml:"pause"`
	Size    *units.Base2Bytes `yaml:"size"`
}

type rule struct {
	Name   string        `yaml:"name"`
	MaxAge time.Duration `yaml:"max_age"`
}

type file struct {
	Named  map[string]limits `yaml:"named"`
	Rules  []rule            `yaml:"rules"`
	Limits limits            `yaml:",inline"`
}

func TestDecode(t *testing.T) {
	const duration, size = " is not a duration: write a number and its unit, such as 3s, 500ms or 5m", " is not a size: write a number and its unit, such as 512KiB or 16MiB"
	for _, tc := range []struct {
		text string
		want []string // nil: valid
	}{
		{"timeout: 3s\npause: 1m30s\nsize: 16MiB\nnamed: {a: {timeout: 500ms, size: 1.5GB}, b: }\nrules: [{name: x, max_age: 24h}]", nil},
		{"timeout: 0\npause: '0'\nsize: 0", nil},
		{"timeout: 3", []string{`timeout: "3"` + duration}},
		{"timeout: '3'", []string{`timeout: "3"` + duration}},
		{"timeout: 1.5", []string{`timeout: "1.5"` + duration}},
		{"timeout: 3000000000", []string{`timeout: "3000000000"` + duration}},
		{"timeout: -3", []string{`timeout: "-3"` + duration}},
		{"timeout: soon", []string{`timeout: "soon"` + duration}},
		{"timeout: [3s]", []string{`timeout: "[3s]"` + duration}},
		{"timeout: 3 s", []string{`timeout: "3 s"` + duration}},
		{"timeout: 1d", []string{`timeout: "1d"` + duration}},
		{"pause: 60", []string{`pause: "60"` + duration}},
		{"size: 16777216", []string{`size: "16777216"` + size}},
		{"size: 16 MiB", []string{`size: "16 MiB"` + size}},
		{"size: 99999999EiB", []string{`size: "99999999EiB"` + size}},
		{"named: {a: {timeout: 3}, b: {size: 5}}", []string{`named: a: timeout: "3"` + duration, `named: b: size: "5"` + size}},
		{"rules: [{name: x, max_age: 24}, {max_age: 7}]", []string{`rules: x: max_age: "24"` + duration, `rules: 2: max_age: "7"` + duration}},
		{"named: {a: &a {timeout: 3}, b: {<<: *a}}", []string{`named: a: timeout: "3"` + duration, `named: b: timeout: "3"` + duration}},
		{"timeout: 3\nnosuch: 1\nrules: 5", []string{`timeout: "3"` + duration, "line 2: unknown key nosuch; the keys here are named, pause, rules, size, timeout", "line 3: cannot unmarshal !!int `5` into []conf.rule"}},
		{"timout: 3s\nrules: [{nam: x}]", []string{"line 1: unknown key timout; did you mean timeout?", "line 2: unknown key nam; did you mean name?"}},
		{"timeout: 3s\ntimeout: 4s", []string{`line 2: field timeout already set`}},
		{"timeout: [", []string{"line 1: did not find expected node content"}},
	} {
		problems := Decode([]byte(tc.text), &file{})
		if len(problems) != len(tc.want) {
			t.Errorf("%s\n\tgives %v", tc.text, errors.Join(problems...))
			continue
		}
		for i, p := range problems {
			if text := p.Error(); !strings.HasPrefix(text, tc.want[i]) || strings.Contains(text, "\n") {
				t.Errorf("%s\n\tgives %s\n\twant  %s", tc.text, text, tc.want[i])
			}
		}
	}
}

func TestBounds(t *testing.T) {
	for want, err := range map[string]error{
		"must be from 1ms to 1h, not 3ns":                    Timeout(3),
		"must be from 1ms to 1h, not 2h0m0s":                 Timeout(2 * time.Hour),
		"must be from 0s to 1m30s, not -1s":                  Duration(-time.Second, 0, 90*time.Second),
		"must be from 4KiB to 1GiB, not 1B":                  Size(1, 4*units.KiB),
		"must be from 1KiB to 1GiB, not 2TiB":                Size(2*units.TiB, units.KiB),
		"must be from 1KiB to 1GiB, not 7EiB1023PiB1023TiB1": Size(1<<63-1, units.KiB),
	} {
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	for _, err := range []error{Timeout(time.Millisecond), Timeout(time.Hour), Size(units.GiB, units.KiB), Duration(0, 0, time.Hour)} {
		if err != nil {
			t.Error(err)
		}
	}
}
