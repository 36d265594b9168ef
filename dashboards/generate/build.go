// Package generate holds the Grafana dashboards as data, one file for each, and
// turns them into the JSON that is committed in the folder above:
//
//	go test . -update
//
// It is a module of its own, so that its dependencies are none of the exporter's;
// the JSON is outside, so that the exporter can embed it.
//
// Expressions are PromQL with three abbreviations, see [query].
package generate

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

// Tag is on every dashboard; they find each other by it.
const Tag = "kamailio"

// Dashboard is one dashboard.
type Dashboard struct {
	UID   string // also the name of the file; never changes, for links are made of it
	Title string
	About string
	From  string // the time range that it opens with; "now-3h" if empty
	Rows  []row
}

// All returns the dashboards, in the order in which one gets to know them.
func All() []Dashboard {
	return []Dashboard{overview(), calls(), gateways(), security(), resources(), exporter(), fleet()}
}

type row struct {
	title  string
	folded bool
	panels []panel
}

// panel is a panel of any kind. Every one has a title, a help text that tells a
// newcomer what it shows and when to worry, a unit, and the words to show when
// there is nothing to be shown.
type panel struct {
	kind  kind
	title string
	help  string
	unit  unit
	none  string
	// width and height in Grafana's grid, which is 24 wide.
	width, height uint32
	queries       []query

	steps  []step  // thresholds, lowest first
	states []state // words for numbers
	min    *float64
	max    *float64
	places *float64 // decimals

	// Graphs.
	stacked     bool // the series add up to something
	limits      bool // draw the thresholds as lines
	legendTable bool // for many series: a table at the right, largest first
	colors      []color

	// Tables.
	columns []column
	hidden  []string // labels that are not shown
	sort    string   // the column to sort by, "-" before it for downwards
}

// color gives a series its colour, by its legend.
type color struct{ legend, color string }

type kind int

const (
	kindStat kind = iota
	kindGraph
	kindTimeline
	kindTable
)

type unit string

// Units of panels. What is counted per second says what it is.
const (
	number   unit = "short"
	ratio    unit = "percentunit"
	seconds  unit = "s"
	octets   unit = "bytes"
	requests unit = "reqps"
	rate     unit = "suffix:/s"
	words    unit = "none" // states, by name
)

// query is an expression. In it
//
//	{S}, {S,…}  select the chosen job and instance, and more
//	{A}, {A,…}  select the same and also what has no such label
//	[R]         is the range of rates
type query struct {
	expr   string
	legend string
	style  style
}

func (q query) promQL() string {
	return strings.NewReplacer(
		"{S", `{job=~"$job",instance=~"$instance"`,
		"{A", `{job=~"$job|",instance=~"$instance|"`,
		"[R]", "[$__rate_interval]",
	).Replace(q.expr)
}

// style is how a series looks where its legend alone does not tell.
type style int

const (
	plain    style = iota
	lastWeek       // dashed and grey: what was a week ago
	limit          // dashed and red: what must not be reached
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

// column is a column of a table: of a label, or of the query at that place.
type column struct {
	title  string
	label  string // a label's name, or
	query  int    // the index of the query, where label is empty
	width  float64
	unit   unit
	places *float64
	steps  []step
	states []state
	links  bool // drill down to the other dashboards from here
}

// Colours mean the same everywhere.
const (
	green  = "green"
	yellow = "#EAB839"
	orange = "orange"
	red    = "red"
	blue   = "blue"
	grey   = "#8e8e8e"
)

// badAbove and badBelow are thresholds, in ascending order.
func badAbove(warn, crit float64) []step { return []step{{0, green}, {warn, orange}, {crit, red}} }
func badBelow(crit, warn float64) []step { return []step{{0, red}, {crit, orange}, {warn, green}} }

// noneMay is for what is counted and should be none.
func noneMay(color string) []step { return []step{{0, green}, {1, color}} }
func always(color string) []step  { return []step{{0, color}} }

// anyIsBad is for what should not happen at all.
func anyIsBad() []step { return []step{{0, green}, {0.0001, orange}} }

var (
	upDown = []state{{0, "Down", red}, {1, "Up", green}}
	// As kamailio_dispatcher_destination_state and kamailio_drouting_gateway_state
	// count them.
	gatewayStates = []state{{0, "Inactive", red}, {1, "Active", green}, {2, "Trying", orange}, {3, "Disabled", blue}}
)

// File returns where the JSON is, seen from this directory.
func (d Dashboard) File() string { return "../" + d.UID + ".json" }

// JSON returns the dashboard as Grafana imports it.
func (d Dashboard) JSON() ([]byte, error) {
	built, err := d.build()
	if err != nil {
		return nil, fmt.Errorf("dashboard %s: %w", d.UID, err)
	}
	out, err := json.MarshalIndent(built, "", "  ")
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
			variable("job", "Job", `label_values(kamailio_up, job)`),
			variable("instance", "Instance", `label_values(kamailio_up{job=~"$job"}, instance)`),
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
			Name("Repairs").
			Datasource(datasource).
			IconColor(blue).
			Expr(query{expr: `sum by (instance, rule, step) (increase(kamailio_exporter_remediation_actions_total{S, outcome=~"applied.*"}[2m])) > 0`}.promQL()).
			TitleFormat("Rule {{rule}}: {{step}}").
			TextFormat("{{instance}}").
			Step("60s")).
		Build()
	if err != nil {
		return dashboard.Dashboard{}, err
	}
	built.Panels, err = d.panels()
	return built, err
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
		if r.folded { // takes no room until it is opened
			g.x, g.y, g.tallest = below.x, below.y, below.tallest
		}
	}
	return all, nil
}

// variable is a choice of several values, or all.
func variable(name, label, labelValues string) cog.Builder[dashboard.VariableModel] {
	return dashboard.NewQueryVariableBuilder(name).
		Label(label).
		Datasource(datasource).
		Query(dashboard.StringOrMap{String: &labelValues}).
		Definition(labelValues).
		Refresh(dashboard.VariableRefreshOnTimeRangeChanged).
		Sort(dashboard.VariableSortAlphabeticalAsc).
		Multi(true).
		IncludeAll(true).
		AllValue(".+").
		Current(dashboard.VariableOption{
			Text:  dashboard.StringOrArrayOfString{ArrayOfString: []string{"All"}},
			Value: dashboard.StringOrArrayOfString{ArrayOfString: []string{"$__all"}},
		})
}

// grid places panels from left to right, line by line.
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
