package generate

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/grafana/grafana-foundation-sdk/go/units"
)

// The fields of a dashboard that Grafana reads and the rules below check. They are
// decoded from the committed files, which are what operators import.
type (
	fileDashboard struct {
		UID, Title, Description string
		Tags                    []string
		Editable                *bool
		SchemaVersion           int
		Panels                  []filePanel
		Templating              struct{ List []fileVariable }
		Annotations             struct {
			List []struct {
				Name, Expr string
				Datasource fileSource
			}
		}
		Links []struct {
			Type                  string
			Tags                  []string
			IncludeVars, KeepTime bool
		}
	}
	filePanel struct {
		ID                       int
		Type, Title, Description string
		Collapsed                bool
		Datasource               fileSource
		GridPos                  struct{ X, Y, W, H int }
		Targets                  []fileTarget
		Panels                   []filePanel
		Options                  struct {
			SortBy []struct{ DisplayName string }
		}
		FieldConfig struct {
			Defaults struct {
				Unit, NoValue string
				Thresholds    fileThresholds
				Mappings      []struct {
					Options map[string]json.RawMessage
				}
			}
			Overrides []struct {
				Properties []struct {
					ID    string
					Value json.RawMessage
				}
			}
		}
	}
	fileTarget struct {
		RefID, Expr, LegendFormat string
		Instant, Range            bool
		Datasource                fileSource
	}
	fileThresholds struct{ Steps []struct{ Color string } }
	fileVariable   struct {
		Name, Type, Query, AllValue string
		Multi, IncludeAll           bool
		Refresh                     int
		Datasource                  *fileSource
	}
	fileSource struct{ Type, UID string }
)

func files(t *testing.T) []fileDashboard {
	t.Helper()
	var all []fileDashboard
	for _, d := range All() {
		text, err := os.ReadFile(d.File())
		if err != nil {
			t.Fatal(err)
		}
		var f fileDashboard
		if err := json.Unmarshal(text, &f); err != nil {
			t.Fatalf("%s: %v", d.File(), err)
		}
		all = append(all, f)
	}
	return all
}

// panels returns all panels except rows, including those in folded rows.
func (d fileDashboard) panels() []filePanel {
	var all []filePanel
	for _, p := range d.Panels {
		if p.Type == "row" {
			all = append(all, p.Panels...)
		} else {
			all = append(all, p)
		}
	}
	return all
}

// TestDashboards checks the rules of Grafana's dashboard-linter, and some additional
// ones.
func TestDashboards(t *testing.T) {
	uids := map[string]bool{}
	for _, d := range files(t) {
		t.Run(d.UID, func(t *testing.T) {
			if uids[d.UID] || !strings.HasPrefix(d.UID, "kamailio-") || len(d.UID) > 40 {
				t.Errorf("uid %q is not one of its own that begins with kamailio-", d.UID)
			}
			uids[d.UID] = true
			if !strings.HasPrefix(d.Title, "Kamailio / ") || d.Description == "" {
				t.Errorf("title %q, description %q", d.Title, d.Description)
			}
			if !slices.Contains(d.Tags, Tag) {
				t.Errorf("tags are %q, without %q", d.Tags, Tag)
			}
			if d.Editable == nil || *d.Editable {
				t.Error("editable is not false")
			}
			if d.SchemaVersion < 39 {
				t.Errorf("schemaVersion is %d", d.SchemaVersion)
			}
			if len(d.Links) != 1 || d.Links[0].Type != "dashboards" || !slices.Contains(d.Links[0].Tags, Tag) || !d.Links[0].IncludeVars || !d.Links[0].KeepTime {
				t.Errorf("the links to the other dashboards are %+v", d.Links)
			}
			lintVariables(t, d.Templating.List)
			ids := map[int]bool{}
			for _, p := range append(slices.Clone(d.Panels), d.panels()...) {
				if p.Type == "row" {
					ids[p.ID] = true
				}
			}
			for _, p := range d.panels() {
				if ids[p.ID] || p.ID == 0 {
					t.Errorf("panel %q: id %d is not its own", p.Title, p.ID)
				}
				ids[p.ID] = true
				lintPanel(t, p)
				lintHonest(t, p)
				lintMany(t, p)
			}
			lintGrid(t, d.Panels)
			for _, p := range d.Panels {
				if p.Type == "row" && p.Collapsed {
					lintGrid(t, p.Panels)
				}
			}
			for _, a := range d.Annotations.List {
				if a.Datasource.UID != "${datasource}" || !selectsInstance(a.Expr) {
					t.Errorf("annotation %q: data source %q, %s", a.Name, a.Datasource.UID, a.Expr)
				}
			}
		})
	}
	if len(uids) != len(All()) {
		t.Errorf("%d dashboards, not %d", len(uids), len(All()))
	}
}

// TestGeneratedFilesAreStable checks that the files lack fields that Grafana fills in,
// which would differ after each export.
func TestGeneratedFilesAreStable(t *testing.T) {
	for _, d := range All() {
		text, err := os.ReadFile(d.File())
		if err != nil {
			t.Fatal(err)
		}
		var top map[string]json.RawMessage
		if err := json.Unmarshal(text, &top); err != nil {
			t.Fatal(err)
		}
		for _, noise := range []string{"id", "version", "iteration", "gnetId"} {
			if _, ok := top[noise]; ok {
				t.Errorf("%s has the member %s", d.File(), noise)
			}
		}
		if strings.Contains(string(text), "NaN") {
			t.Errorf("%s speaks of NaN", d.File())
		}
	}
}

func lintVariables(t *testing.T, variables []fileVariable) {
	var names []string
	for _, v := range variables {
		names = append(names, v.Name)
		if v.Type == "datasource" {
			if v.Query != "prometheus" {
				t.Errorf("variable %s is a data source of type %q", v.Name, v.Query)
			}
			continue
		}
		all := ".+"
		if v.Name == "cluster" { // a label that can be missing
			all = ".*"
		}
		if v.Type != "query" || !v.Multi || !v.IncludeAll || v.AllValue != all || v.Refresh != 2 {
			t.Errorf("variable %s must be a query, multi, with All as %s, refreshed on a change of the time range: %+v", v.Name, all, v)
		}
		if v.Datasource == nil || v.Datasource.UID != "${datasource}" {
			t.Errorf("variable %s asks another data source", v.Name)
		}
		if _, _, ok := labelValues(v.Query); !ok {
			t.Errorf("variable %s: %q is not label_values(metric, label)", v.Name, v.Query)
		}
	}
	if !slices.Equal(names, []string{"datasource", "cluster", "job", "instance"}) {
		t.Errorf("variables are %q", names)
	}
}

// labelValues parses label_values(metric, label).
func labelValues(query string) (metric, label string, ok bool) {
	found := regexp.MustCompile(`^label_values\((.+), *([a-z_]+)\)$`).FindStringSubmatch(query)
	if found == nil {
		return "", "", false
	}
	return found[1], found[2], true
}

func lintPanel(t *testing.T, p filePanel) {
	name := fmt.Sprintf("panel %q", p.Title)
	if p.Title == "" || len(p.Description) < 20 || !strings.HasSuffix(p.Description, ".") {
		t.Errorf("%s: a title, and a description in sentences; not %q", name, p.Description)
	}
	if !slices.Contains([]string{"stat", "timeseries", "table", "state-timeline"}, p.Type) {
		t.Errorf("%s is a %s", name, p.Type)
	}
	if p.Datasource.UID != "${datasource}" {
		t.Errorf("%s asks %q and not the chosen data source", name, p.Datasource.UID)
	}
	if p.FieldConfig.Defaults.NoValue == "" || strings.EqualFold(p.FieldConfig.Defaults.NoValue, "no data") {
		t.Errorf("%s does not say why it is empty", name)
	}
	lintUnit(t, name, p.FieldConfig.Defaults.Unit)
	for _, o := range p.FieldConfig.Overrides {
		for _, property := range o.Properties {
			if property.ID == "unit" {
				lintUnit(t, name, strings.Trim(string(property.Value), `"`))
			}
		}
	}
	if len(p.Targets) == 0 {
		t.Errorf("%s asks nothing", name)
	}
	refs := map[string]bool{}
	for _, q := range p.Targets {
		if refs[q.RefID] || q.RefID == "" {
			t.Errorf("%s: two queries %q", name, q.RefID)
		}
		refs[q.RefID] = true
		if q.Datasource.UID != "${datasource}" {
			t.Errorf("%s %s asks %q and not the chosen data source", name, q.RefID, q.Datasource.UID)
		}
		if p.Type != "table" && q.LegendFormat == "" {
			t.Errorf("%s %s has no legend", name, q.RefID)
		}
		if !selectsInstance(q.Expr) {
			t.Errorf("%s %s is not limited to the chosen jobs and instances: %s", name, q.RefID, q.Expr)
		}
	}
}

// lintHonest checks that a panel shows what is, and nothing if nothing is known.
func lintHonest(t *testing.T, p filePanel) {
	for _, q := range p.Targets {
		if now := p.Type == "stat" || p.Type == "table"; q.Instant != now || q.Range == now {
			t.Errorf("panel %q %s: a %s with instant %v, range %v: a range would show the last value of a dead server", p.Title, q.RefID, p.Type, q.Instant, q.Range)
		} else if now && strings.Contains(q.Expr, "$__rate_interval") {
			t.Errorf("panel %q %s: the present depends on the chosen time range", p.Title, q.RefID)
		}
	}
	// Grafana colors a missing value like the lowest threshold.
	lowest := func(where string, steps fileThresholds) {
		if p.Type != "timeseries" && len(steps.Steps) > 0 && steps.Steps[0].Color != grey {
			t.Errorf("panel %q: %s without a value is %s", p.Title, where, steps.Steps[0].Color)
		}
	}
	lowest("the panel", p.FieldConfig.Defaults.Thresholds)
	for _, m := range p.FieldConfig.Defaults.Mappings {
		for value := range m.Options {
			if !regexp.MustCompile(`^-?\d+$`).MatchString(value) { // Grafana compares texts
				t.Errorf("panel %q: the value %q is never mapped", p.Title, value)
			}
		}
	}
	for _, o := range p.FieldConfig.Overrides {
		for _, property := range o.Properties {
			if property.ID == "thresholds" {
				var steps fileThresholds
				if err := json.Unmarshal(property.Value, &steps); err != nil {
					t.Fatal(err)
				}
				lowest("a column", steps)
			}
			if property.ID == "mappings" && !strings.Contains(p.Title, "Certificates") && p.Options.SortBy[0].DisplayName != "State" && p.Options.SortBy[0].DisplayName != "Severity" {
				t.Errorf("panel %q shows states and is sorted by %q, so that what is down is not on top", p.Title, p.Options.SortBy[0].DisplayName)
			}
		}
	}
}

// lintMany checks that a panel can be read with hundreds of servers, also if two have the
// same name in two jobs or clusters.
func lintMany(t *testing.T, p filePanel) {
	for _, q := range p.Targets {
		name := fmt.Sprintf("panel %q %s", p.Title, q.RefID)
		for _, by := range regexp.MustCompile(`(?:by|on) \(([^)]*\binstance\b[^)]*)\)`).FindAllStringSubmatch(q.Expr, -1) {
			if labels := strings.Split(by[1], ", "); !slices.Contains(labels, "cluster") || !slices.Contains(labels, "job") {
				t.Errorf("%s: %q mixes servers of the same name", name, by[0])
			}
		}
		if p.Type != "table" && strings.Contains(q.LegendFormat, "{{instance}}") && !strings.Contains(q.Expr, "topk(") && !strings.Contains(q.Expr, "bottomk(") {
			t.Errorf("%s: a line for each server, however many there are", name)
		}
		if p.Type == "stat" && strings.Contains(q.LegendFormat, "{{instance}}") {
			t.Errorf("%s: a number for each server", name)
		}
	}
}

// lintUnit checks that the unit is one of the SDK's, or one with a text.
func lintUnit(t *testing.T, name, unit string) {
	known := []string{units.NoUnit, units.Short, units.PercentUnit, units.Seconds, units.BytesIEC, units.BytesPerSecondIEC, units.BytesPerSecondSI, units.RequestsPerSecond, string(ago)}
	if !slices.Contains(known, unit) && !strings.HasPrefix(unit, "suffix:") {
		t.Errorf("%s: unit %q is not among %q", name, unit, known)
	}
}

// lintGrid finds panels that overlap or exceed the grid.
func lintGrid(t *testing.T, panels []filePanel) {
	taken := map[[2]int]string{}
	for _, p := range panels {
		g := p.GridPos
		if g.W < 1 || g.H < 1 || g.X < 0 || g.X+g.W > 24 {
			t.Errorf("panel %q is outside of the grid: %+v", p.Title, g)
		}
		for x := g.X; x < g.X+g.W; x++ {
			for y := g.Y; y < g.Y+g.H; y++ {
				if other, ok := taken[[2]int{x, y}]; ok {
					t.Errorf("panels %q and %q overlap at %d, %d", other, p.Title, x, y)
					return
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
	}
}
