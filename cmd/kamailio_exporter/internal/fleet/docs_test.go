package fleet

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

func fleetPage(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "..", "docs/multi-target.md"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestDocumentedFiles checks that the examples, and the files that they name, are valid.
func TestDocumentedFiles(t *testing.T) {
	page := fleetPage(t)
	dir := t.TempDir()
	for name, text := range map[string]string{"fra.password": "x", "ca.pem": certificate} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	checked := 0
	for _, block := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(page, -1) {
		text := block[1]
		if strings.Contains(text, "scrape_configs:") {
			continue // a file of Prometheus
		}
		text = strings.ReplaceAll(text, "/etc/kamailio-exporter/", dir+"/")
		if _, problems := parse([]byte(text), dir, 0o644, testBase()); len(problems) > 0 {
			t.Errorf("%v in\n%s", errors.Join(problems...), text)
		}
		checked++
	}
	if checked != 3 {
		t.Errorf("%d examples", checked)
	}
}

// TestEveryKeyIsDocumented checks that every key of the file is documented.
func TestEveryKeyIsDocumented(t *testing.T) {
	page := fleetPage(t)
	seen := 0
	var walk func(reflect.Type)
	walk = func(of reflect.Type) {
		for of.Kind() == reflect.Pointer || of.Kind() == reflect.Map {
			of = of.Elem()
		}
		if of.Kind() != reflect.Struct || !strings.HasPrefix(of.PkgPath(), "github.com/kamailio-exporter/") {
			return
		}
		for field := range of.Fields() {
			name, _, _ := strings.Cut(field.Tag.Get("yaml"), ",")
			if name != "" {
				seen++
				if !strings.Contains(page, "`"+name+"`") && !regexp.MustCompile(`(?m)^ *`+name+`:`).MatchString(page) {
					t.Errorf("docs/multi-target.md does not explain %s", name)
				}
			}
			walk(field.Type)
		}
	}
	walk(reflect.TypeFor[fileSpec]())
	if seen < 40 {
		t.Errorf("only %d words", seen)
	}
}

// certificate is not used by any server.
const certificate = `-----BEGIN CERTIFICATE-----
MIIBdjCCARugAwIBAgIUOssjD5n8TzrpKr4uz0fjjorOM/wwCgYIKoZIzj0EAwIw
DzENMAsGA1UEAwwEdGVzdDAgFw0yNjExMjYwMDIzMTRaGA8yMTI2MTEwMjAwMjMx
NFowDzENMAsGA1UEAwwEdGVzdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABATq
ZUYXpve2HO+FQznVcyrfMWlUw87gIVPdRshJQR3Z7fto+I0WkEdwyHz2hQ5KesCJ
HiBdTQEg7WrTMGnl9tyjUzBRMB0GA1UdDgQWBBSrSfEXRhJQoB0mvhddcymhqVLE
4DAfBgNVHSMEGDAWgBSrSfEXRhJQoB0mvhddcymhqVLE4DAPBgNVHRMBAf8EBTAD
AQH/MAoGCCqGSM49BAMCA0kAMEYCIQD89ai29oHT0vEOtx9mmPpI2uazP/1B5aPf
JNyQAVKerwIhAJBF8ow1fw5r3hzmH7k9NbtFI22o2dIgLLWHNfQOqEp7
-----END CERTIFICATE-----
`
