// Package generate defines the Grafana dashboards as data, one file for each, and
// generates the JSON that is committed in the parent directory:
//
//	go test . -update
//
// It is a separate module, so that the exporter does not depend on its dependencies. The
// JSON is outside of it, so that the exporter can embed the JSON.
//
// Expressions are PromQL with abbreviations, see [query].
package generate

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

// Tag is on every dashboard. The links between dashboards use it.
const Tag = "kamailio"

// Dashboard is one dashboard.
type Dashboard struct {
	UID   string // also the file name; never changes, since links contain it
	Title string
	About string
	From  string // the initial time range; "now-3h" if empty
	Rows  []row
}

// All returns the dashboards, in the order of their introduction to a new user.
func All() []Dashboard {
	return []Dashboard{overview(), calls(), gateways(), security(), resources(), exporter(), fleet(), trunks()}
}

type row struct {
	title  string
	folded bool
	panels []panel
}

// panel is a panel of any kind. Each has a title, a help text that tells a newcomer what
// it shows and when to worry, a unit, and a text to show when there is no data.
type panel struct {
	kind  kind
	title string
	help  string
	unit  unit
	none  string
	// Width and height in units of Grafana's grid, which is 24 units wide.
	width, height uint32
	queries       []query

	steps  []step  // thresholds, lowest first
	states []state // texts for values
	min    *float64
	max    *float64
	places *float64 // number of decimals

	// For stats: show the legends of the series instead of their values.
	named bool

	// For graphs.
	stacked     bool // stack the series, if their sum has a meaning
	limits      bool // draw the thresholds as lines
	legendTable bool // for many series: a legend table on the right, largest first
	lowFirst    bool // or smallest first
	colors      []color

	// For tables.
	columns []column
	hidden  []string // labels that are not shown
	sort    string   // the column to sort by; "-" before it: descending
}

// color sets the color of a series, by its legend.
type color struct{ legend, color string }

type kind int

const (
	kindStat kind = iota
	kindGraph
	kindTimeline
	kindTable
)

type unit string

// Units of panels. A rate names what it counts.
const (
	number   unit = "short"
	ratio    unit = "percentunit"
	seconds  unit = "s"
	octets   unit = "bytes"
	requests unit = "reqps"
	rate     unit = "suffix:/s"
	words    unit = "none"            // states, shown by name
	ago      unit = "dateTimeFromNow" // of a time in milliseconds
)

// query is an expression with these abbreviations:
//
//	{S}, {S,…}  selects the chosen cluster, job and instance, and more
//	{A}, {A,…}  selects the same, and also series without these labels
//	[R]         the range for rates
type query struct {
	expr   string
	legend string
	style  style
	every  string // the smallest step of a range, if not that of the scrapes
}

func (q query) promQL() string {
	return strings.NewReplacer(
		"{S", `{cluster=~"$cluster",job=~"$job",instance=~"$instance"`,
		"{A", `{cluster=~"$cluster|",job=~"$job|",instance=~"$instance|"`,
		"[R]", "[$__rate_interval]",
	).Replace(q.expr)
}

// style sets how a series is drawn if its legend is not enough.
type style int

const (
	plain    style = iota
	lastWeek       // dashed and gray: the value of a week ago
	limit          // dashed and red: a limit
	good
	warning
	bad
	neutral
)

type step struct {
	from  float64
	color string
}

type state struct {
	value float64
	text  string
	color string
}

// column is a column of a table, for a label or for a query.
type column struct {
	title  string
	label  string // the name of a label, or
	query  int    // the index of the query, if label is empty
	width  float64
	unit   unit
	places *float64
	steps  []step
	states []state
	links  bool // link to the other dashboards
}

// Colors have the same meaning on all dashboards. Gray is for what is not known: it is the
// color below the lowest threshold, which Grafana also uses if there is no value.
const (
	green  = "green"
	yellow = "#EAB839"
	orange = "orange"
	red    = "red"
	blue   = "blue"
	grey   = "#8e8e8e"
)

// badAbove and badBelow return thresholds in ascending order.
func badAbove(warn, crit float64) []step { return []step{{0, green}, {warn, orange}, {crit, red}} }
func badBelow(crit, warn float64) []step { return []step{{0, red}, {crit, orange}, {warn, green}} }

// noneMay returns thresholds for counts that should be 0.
func noneMay(color string) []step { return []step{{0, green}, {1, color}} }
func always(color string) []step  { return []step{{0, color}} }

// anyIsBad returns thresholds for what should never happen.
func anyIsBad() []step { return []step{{0, green}, {0.0001, orange}} }

var (
	upDown = []state{{0, "Down", red}, {1, "Up", green}}
	// The values of kamailio_dispatcher_destination_state and
	// kamailio_drouting_gateway_state.
	gatewayStates = []state{{0, "Inactive", red}, {1, "Active", green}, {2, "Trying", orange}, {3, "Disabled", blue}}
)

// File returns the path of the JSON, relative to this directory.
func (d Dashboard) File() string { return "../" + d.UID + ".json" }

// The oldest Grafana that shows the dashboards, and the version of its schema. A newer one
// migrates what it reads.
const (
	oldestGrafana = "10.4.0"
	oldestSchema  = 39
)

// requirement is what grafana.com lists as a dependency.
type requirement struct {
	Type    string `json:"type"`
	ID      string `json:"id"`
	Name    string `json:"name"`
	Version string `json:"version"`
}

// JSON returns the dashboard as Grafana exports it for others, which grafana.com asks for.
// There is no input: the data source is a variable, which works for provisioned files too.
func (d Dashboard) JSON() ([]byte, error) {
	built, err := d.build()
	if err != nil {
		return nil, fmt.Errorf("dashboard %s: %w", d.UID, err)
	}
	out, err := json.MarshalIndent(struct {
		Inputs   []struct{}    `json:"__inputs"`
		Requires []requirement `json:"__requires"`
		dashboard.Dashboard
	}{[]struct{}{}, requirements(), built}, "", "  ")
	return append(out, '\n'), err
}

var datasource = common.DataSourceRef{Type: new("prometheus"), Uid: new("${datasource}")}

//nolint:staticcheck // SA1019: schema v1 is what every Grafana imports, v2 only the newest
func (d Dashboard) build() (dashboard.Dashboard, error) {
	from := d.From
	if from == "" {
		from = "now-3h"
	}
	built, err := dashboard.NewDashboardBuilder("Kamailio / "+d.Title).
		Uid(d.UID).
		Description(d.About).
		Tags([]string{Tag}).
		Readonly().
		Tooltip(dashboard.DashboardCursorSyncCrosshair).
		Time(from, "now").
		Refresh("30s").
		Timezone("browser").
		Variables([]cog.Builder[dashboard.VariableModel]{
			dashboard.NewDatasourceVariableBuilder("datasource").Label("Data source").Type("prometheus"),
			variable("cluster", "Cluster", ".*", `label_values(kamailio_up, cluster)`),
			variable("job", "Job", ".+", `label_values(kamailio_up{cluster=~"$cluster"}, job)`),
			variable("instance", "Instance", ".+", `label_values(kamailio_up{cluster=~"$cluster",job=~"$job"}, instance)`),
		}).
		Link(dashboard.NewDashboardLinkBuilder("Kamailio").
			Type(dashboard.DashboardLinkTypeDashboards).
			Tags([]string{Tag}).
			Tooltip("The other Kamailio dashboards, for the same servers and time").
			Icon("external link").
			IncludeVars(true).
			KeepTime(true)).
		Annotation(dashboard.NewAnnotationQueryBuilder().
			Name("Restarts").
			Datasource(datasource).
			IconColor(orange).
			Expr(query{expr: `changes(kamailio_start_time_seconds{S}[2m]) > 0`}.promQL()).
			TitleFormat("Kamailio restarted").
			TextFormat("{{instance}}").
			Step("60s")).
		Annotation(dashboard.NewAnnotationQueryBuilder().
			Name("Actions").
			Datasource(datasource).
			IconColor("purple").
			Expr(query{expr: `max by (cluster, job, instance, action) (kamailio_exporter_admin_last_success_timestamp_seconds{S}) > time() - 90`}.promQL()).
			TitleFormat("Action {{action}}").
			TextFormat("{{instance}}").
			Step("60s")).
		Annotation(dashboard.NewAnnotationQueryBuilder().
			Name("Repairs").
			Datasource(datasource).
			IconColor(blue).
			Expr(query{expr: `sum by (cluster, job, instance, rule, step) (increase(kamailio_exporter_remediation_actions_total{S, outcome=~"applied.*"}[2m])) > 0`}.promQL()).
			TitleFormat("Rule {{rule}}: {{step}}").
			TextFormat("{{instance}}").
			Step("60s")).
		Build()
	if err != nil {
		return dashboard.Dashboard{}, err
	}
	built.SchemaVersion = oldestSchema
	// The SDK's default moves links and annotations into a menu.
	for i := range built.Links {
		built.Links[i].Placement = nil
	}
	for i := range built.Annotations.List {
		built.Annotations.List[i].Placement = nil
	}
	built.Panels, err = d.panels()
	return built, err
}

// requirements are the same for all dashboards: what Grafana brings along.
func requirements() []requirement {
	return []requirement{
		{"grafana", "grafana", "Grafana", oldestGrafana},
		{"datasource", "prometheus", "Prometheus", "1.0.0"},
		{"panel", "stat", "Stat", ""},
		{"panel", "state-timeline", "State timeline", ""},
		{"panel", "table", "Table", ""},
		{"panel", "timeseries", "Time series", ""},
	}
}

func (d Dashboard) panels() ([]dashboard.PanelOrRowPanel, error) {
	var all []dashboard.PanelOrRowPanel
	g := grid{}
	for _, r := range d.Rows {
		head := dashboard.NewRowPanel()
		head.Title, head.Collapsed = &r.title, r.folded
		head.Id, head.GridPos = g.place(24, 1)
		all = append(all, dashboard.PanelOrRowPanel{RowPanel: head})
		below := g
		for _, p := range r.panels {
			panel, err := p.build()
			if err != nil {
				return nil, fmt.Errorf("panel %q: %w", p.title, err)
			}
			id, at := g.place(p.width, p.height)
			panel.Id, panel.GridPos = &id, at
			if r.folded {
				head.Panels = append(head.Panels, panel)
			} else {
				all = append(all, dashboard.PanelOrRowPanel{Panel: &panel})
			}
		}
		g.newLine()
		if r.folded { // takes no space until it is opened
			g.x, g.y, g.tallest = below.x, below.y, below.tallest
		}
	}
	return all, nil
}

// variable is a dashboard variable with a choice of several values, or all. A label that
// can be missing needs ".*" for all.
func variable(name, label, all, labelValues string) cog.Builder[dashboard.VariableModel] {
	return dashboard.NewQueryVariableBuilder(name).
		Label(label).
		Datasource(datasource).
		Query(dashboard.StringOrMap{String: &labelValues}).
		Definition(labelValues).
		Refresh(dashboard.VariableRefreshOnTimeRangeChanged).
		Sort(dashboard.VariableSortAlphabeticalAsc).
		Multi(true).
		IncludeAll(true).
		AllValue(all).
		Current(dashboard.VariableOption{
			Text:  dashboard.StringOrArrayOfString{ArrayOfString: []string{"All"}},
			Value: dashboard.StringOrArrayOfString{ArrayOfString: []string{"$__all"}},
		})
}

// grid places panels from left to right, row by row.
type grid struct {
	id, x, y, tallest uint32
}

func (g *grid) place(width, height uint32) (id uint32, at *dashboard.GridPos) {
	if g.x+width > 24 {
		g.newLine()
	}
	at = &dashboard.GridPos{X: g.x, Y: g.y, W: width, H: height}
	g.x += width
	g.tallest = max(g.tallest, height)
	if g.x == 24 {
		g.newLine()
	}
	g.id++
	return g.id, at
}

func (g *grid) newLine() {
	g.x, g.y, g.tallest = 0, g.y+g.tallest, 0
}
