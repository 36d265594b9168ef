// Package conf parses configuration: YAML files, strictly and with one line for each
// mistake, and quantities, which must have a unit.
package conf

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/units"
	"go.yaml.in/yaml/v2"
)

// These match what the YAML package adds to its errors, and values of credential fields,
// which must not be printed.
var (
	yamlNoise = regexp.MustCompile(` in type \w+\.\w+|^yaml: (unmarshal errors:\s+)?|\b into [a-z]+\.\w+`)
	badSecret = regexp.MustCompile("`[^`]*` into config\\.")
)

// Decode parses YAML. Unknown fields, duplicate keys and quantities without a unit are
// errors: the YAML package would read the number 3 as a duration of 3 ns.
func Decode(text []byte, to any) []error {
	var raw any
	if err := yaml.Unmarshal(text, &raw); err != nil {
		return []error{clean(err.Error())}
	}
	problems := quantities("", raw, reflect.TypeOf(to))
	err := yaml.UnmarshalStrict(text, to)
	if typed := (*yaml.TypeError)(nil); errors.As(err, &typed) {
		for _, line := range typed.Errors {
			if !strings.HasSuffix(line, " into time.Duration") { // quantities reports these
				problems = append(problems, clean(explainKey(line, reflect.TypeOf(to))))
			}
		}
	} else if err != nil && len(problems) == 0 { // an invalid size stops the decoder
		problems = append(problems, clean(err.Error()))
	}
	return problems
}

// OneLine returns the error on one line. Errors about a file can have several lines.
func OneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

func clean(line string) error {
	line = badSecret.ReplaceAllString(line, "into config.")
	return errors.New(strings.Join(strings.Fields(yamlNoise.ReplaceAllString(line, "")), " "))
}

var (
	durationType    = reflect.TypeFor[time.Duration]()
	sizeType        = reflect.TypeFor[units.Base2Bytes]()
	unmarshalerType = reflect.TypeFor[yaml.Unmarshaler]()
)

// quantities walks the decoded value along its type, and reports invalid durations and
// sizes.
func quantities(where string, raw any, t reflect.Type) (problems []error) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	below := func(key string, raw any, t reflect.Type) {
		if where != "" {
			key = where + ": " + key
		}
		problems = append(problems, quantities(key, raw, t)...)
	}
	var err error
	switch {
	case raw == nil || reflect.PointerTo(t).Implements(unmarshalerType):
	case t == durationType:
		err = checkDuration(raw)
	case t == sizeType:
		err = checkSize(raw)
	case t.Kind() == reflect.Struct:
		members, _ := raw.(map[any]any)
		for field := range t.Fields() {
			name, option, _ := strings.Cut(field.Tag.Get("yaml"), ",")
			switch {
			case option == "inline":
				problems = append(problems, quantities(where, raw, field.Type)...)
			case name != "" && name != "-":
				below(name, members[name], field.Type)
			}
		}
	case t.Kind() == reflect.Map:
		members, _ := raw.(map[any]any)
		byName := map[string]any{}
		for key, value := range members {
			byName[fmt.Sprint(key)] = value
		}
		for _, name := range slices.Sorted(maps.Keys(byName)) {
			below(name, byName[name], t.Elem())
		}
	case t.Kind() == reflect.Slice:
		list, _ := raw.([]any)
		for i, value := range list {
			name := fmt.Sprint(i + 1)
			if members, ok := value.(map[any]any); ok && members["name"] != nil {
				name = fmt.Sprint(members["name"])
			}
			below(name, value, t.Elem())
		}
	}
	if err != nil {
		problems = append(problems, fmt.Errorf("%s: %w", where, err))
	}
	return problems
}

func checkDuration(raw any) error {
	if _, err := time.ParseDuration(fmt.Sprint(raw)); err != nil {
		return NoDuration(raw)
	}
	return nil
}

func checkSize(raw any) error {
	if _, err := units.ParseBase2Bytes(fmt.Sprint(raw)); err != nil {
		return NoSize(raw)
	}
	return nil
}

// NoDuration returns the error for a value that is not a duration.
func NoDuration(value any) error {
	return fmt.Errorf("%.40q is not a duration: write a number and its unit, such as 3s, 500ms or 5m", fmt.Sprint(value))
}

// NoSize returns the error for a value that is not a size.
func NoSize(value any) error {
	return fmt.Errorf("%.40q is not a size: write a number and its unit, such as 512KiB or 16MiB", fmt.Sprint(value))
}

// Timeout checks the bounds of a timeout.
func Timeout(d time.Duration) error { return Duration(d, time.Millisecond, time.Hour) }

// Duration checks the bounds of a duration.
func Duration(d, least, most time.Duration) error {
	if d < least || d > most {
		return fmt.Errorf("must be from %s to %s, not %s", short(least), short(most), d)
	}
	return nil
}

// Size checks the bounds of a size limit.
func Size(size, least units.Base2Bytes) error {
	if most := units.GiB; size < least || size > most {
		return fmt.Errorf("must be from %s to %s, not %s", least, most, size)
	}
	return nil
}

// short formats a duration without zero parts: 1h instead of 1h0m0s.
func short(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
