package generate

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	"github.com/grafana/grafana-foundation-sdk/go/statetimeline"
	"github.com/grafana/grafana-foundation-sdk/go/table"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
)

var update = flag.Bool("update", false, "write the dashboards anew")

// TestFiles checks that the committed files match the code.
func TestFiles(t *testing.T) {
	for _, d := range All() {
		want, err := d.JSON()
		if err != nil {
			t.Fatal(err)
		}
		if *update {
			if err := os.WriteFile(d.File(), want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := os.ReadFile(d.File()); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what the code says (%v): go test . -update", d.File(), err)
		}
	}
}

// TestSchema decodes the files strictly with the types that Grafana generates from its
// schema, and checks what it needs to import or to provision them.
func TestSchema(t *testing.T) {
	runtime := cog.NewRuntime()
	runtime.RegisterDataqueryVariant(prometheus.VariantConfig())
	runtime.RegisterPanelcfgVariant(stat.VariantConfig())
	runtime.RegisterPanelcfgVariant(statetimeline.VariantConfig())
	runtime.RegisterPanelcfgVariant(table.VariantConfig())
	runtime.RegisterPanelcfgVariant(timeseries.VariantConfig())
	for _, d := range All() {
		text := readText(t, d.File())
		var file map[string]json.RawMessage
		if err := json.Unmarshal([]byte(text), &file); err != nil {
			t.Fatal(err)
		}
		inputs, required := string(file["__inputs"]), string(file["__requires"])
		delete(file, "__inputs") // the schema is of what Grafana stores
		delete(file, "__requires")
		plain, err := json.Marshal(file)
		if err != nil {
			t.Fatal(err)
		}
		var decoded dashboard.Dashboard                                                 //nolint:staticcheck // SA1019: see build
		if err := decoded.UnmarshalJSONStrict(plain); err != nil && err.Error() != "" { // an empty list of errors is not nil
			t.Errorf("%s: %v", d.File(), err)
		}
		if err := decoded.Validate(); err != nil {
			t.Errorf("%s: %v", d.File(), err)
		}
		if decoded.SchemaVersion != oldestSchema || !strings.Contains(required, `"version": "`+oldestGrafana+`"`) || inputs != "[]" || decoded.Id != nil {
			t.Errorf("%s: schema version %d, inputs %s, requires %s", d.File(), decoded.SchemaVersion, inputs, required)
		}
		for _, used := range regexp.MustCompile(`(?m)^ {6,12}"type": "([a-z-]+)",\n +"id": \d`).FindAllStringSubmatch(text, -1) {
			if !strings.Contains(required, `"id": "`+used[1]+`"`) {
				t.Errorf("%s: __requires lacks the panel %s", d.File(), used[1])
			}
		}
		if v := decoded.Templating.List[0]; v.Type != dashboard.VariableTypeDatasource || v.Name != "datasource" {
			t.Errorf("%s: the first variable is %s", d.File(), v.Name)
		}
		for _, ref := range regexp.MustCompile(`"uid": "([^"]+)"`).FindAllStringSubmatch(text, -1) {
			if ref[1] != "${datasource}" && ref[1] != d.UID {
				t.Errorf("%s: the data source %q is not the variable", d.File(), ref[1])
			}
		}
	}
}
