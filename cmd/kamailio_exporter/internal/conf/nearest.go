package conf

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
)

// DidYouMean returns the end of an error about an unknown word. It names the most similar
// known word, and is empty if no word is similar.
func DidYouMean(word string, known []string) string {
	best, least := "", 2+len(word)/4
	for _, k := range known {
		if d := Distance(word, k); d < least {
			best, least = k, d
		}
	}
	if best == "" {
		return ""
	}
	return "; did you mean " + best + "?"
}

// Distance is the number of bytes to change, insert or delete to turn one text into the
// other (Levenshtein). Only the first maxDistance bytes of each are compared.
func Distance(a, b string) int {
	a, b = a[:min(len(a), maxDistance)], b[:min(len(b), maxDistance)]
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

const maxDistance = 64

var unknownKey = regexp.MustCompile(`field (\S+) not found in type (\S+)`)

// explainKey turns the YAML package's error about an unknown key into one that names the
// most similar key, or all keys that are valid there.
func explainKey(line string, to reflect.Type) string {
	m := unknownKey.FindStringSubmatch(line)
	if m == nil {
		return line
	}
	known := map[string][]string{}
	collectKeys(to, known)
	keys := slices.Sorted(slices.Values(known[m[2]]))
	hint := DidYouMean(m[1], keys)
	if hint == "" && len(keys) > 0 {
		hint = "; the keys here are " + strings.Join(keys, ", ")
	}
	return strings.Replace(line, m[0], fmt.Sprintf("unknown key %s%s", m[1], hint), 1)
}

// collectKeys adds the keys of a type and of all types that it contains, by type name.
func collectKeys(t reflect.Type, known map[string][]string) {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		collectKeys(t.Elem(), known)
	case reflect.Struct:
		if known[t.String()] != nil {
			return
		}
		keys := []string{}
		known[t.String()] = keys
		for field := range t.Fields() {
			name, option, _ := strings.Cut(field.Tag.Get("yaml"), ",")
			collectKeys(field.Type, known)
			switch {
			case option == "inline":
				keys = append(keys, known[field.Type.String()]...)
			case name != "" && name != "-":
				keys = append(keys, name)
			}
		}
		known[t.String()] = keys
	}
}
