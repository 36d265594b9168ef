package generate

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	"github.com/grafana/grafana-foundation-sdk/go/statetimeline"
	"github.com/grafana/grafana-foundation-sdk/go/table"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
)

// build builds the part that differs by kind of panel, and then the part that all have in
// common.
func (p panel) build() (built dashboard.Panel, err error) {
	switch p.kind {
	case kindStat:
		built, err = p.stat()
	case kindGraph:
		built, err = p.graph()
	case kindTimeline:
		built, err = p.timeline()
	case kindTable:
		built, err = p.table()
	default:
		err = fmt.Errorf("no such kind of panel: %d", p.kind)
	}
	if err != nil {
		return built, err
	}
	built.Title, built.Description = &p.title, &p.help
	built.Datasource = &datasource
	for i, q := range p.queries {
		target, err := q.target(i, p.kind)
		if err != nil {
			return built, err
		}
		built.Targets = append(built.Targets, target)
	}
	if built.FieldConfig == nil {
		built.FieldConfig = dashboard.NewFieldConfigSource()
	}
	fields := &built.FieldConfig.Defaults
	fields.Unit, fields.NoValue = (*string)(&p.unit), new(p.noValue())
	fields.Min, fields.Max, fields.Decimals = p.min, p.max, p.places
	if p.states != nil {
		fields.Mappings = mappings(p.states)
	}
	fields.Thresholds = thresholds(p.steps)
	return built, nil
}

// noValue is the text of an empty panel. Whatever else can be the reason, a server that
// is down has no values either.
func (p panel) noValue() string {
	if regexp.MustCompile("answers|scraped|[Uu]nknown|[Rr]ules").MatchString(p.none) {
		return p.none
	}
	return p.none + ", or no server answers"
}

func (q query) target(place int, kind kind) (*prometheus.Dataquery, error) {
	b := prometheus.NewDataqueryBuilder().
		RefId(refID(place)).
		Datasource(datasource).
		Expr(q.promQL()).
		LegendFormat(q.legend)
	if q.every != "" {
		b = b.Interval(q.every)
	}
	switch kind {
	case kindTable:
		b = b.Instant().Format(prometheus.PromQueryFormatTable)
	case kindStat: // the last value of a range would still show what a dead server had
		b = b.Instant()
	default:
		b = b.Range()
	}
	built, err := b.Build()
	if err != nil {
		return nil, err
	}
	target := built.(prometheus.Dataquery)
	return &target, nil
}

// refID returns Grafana's name for a query of a panel: A, B, C.
func refID(place int) string { return "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[place : place+1] }

func (p panel) stat() (dashboard.Panel, error) {
	text := common.BigValueTextModeAuto
	if p.named {
		text = common.BigValueTextModeName
	}
	return stat.NewPanelBuilder().
		ColorMode(common.BigValueColorModeValue).
		GraphMode(common.BigValueGraphModeNone). // a line would cross the number
		TextMode(text).
		JustifyMode(common.BigValueJustifyModeCenter).
		Orientation(common.VizOrientationAuto).
		ReduceOptions(common.NewReduceDataOptionsBuilder().Calcs([]string{"lastNotNull"})).
		Build()
}

func (p panel) graph() (dashboard.Panel, error) {
	legend := common.NewVizLegendOptionsBuilder().
		ShowLegend(true).
		DisplayMode(common.LegendDisplayModeList).
		Placement(common.LegendPlacementBottom)
	if p.legendTable {
		legend = legend.DisplayMode(common.LegendDisplayModeTable).
			Placement(common.LegendPlacementRight).
			Calcs([]string{"lastNotNull", "max"}).
			SortBy("Last *").SortDesc(!p.lowFirst)
	}
	b := timeseries.NewPanelBuilder().
		Legend(legend).
		Tooltip(common.NewVizTooltipOptionsBuilder().Mode(common.TooltipDisplayModeMulti).Sort(common.SortOrderDescending)).
		LineWidth(1.5).
		FillOpacity(8).
		ShowPoints(common.VisibilityModeNever).
		// A missed scrape must not leave a gap in the line; a server that is down must.
		SpanNulls(common.BoolOrFloat64{Float64: new(120_000.0)}).
		ColorScheme(dashboard.NewFieldColorBuilder().Mode(dashboard.FieldColorModeIdPaletteClassic)).
		AxisSoftMin(0)
	if top, ok := axisTop[p.unit]; ok {
		b = b.AxisSoftMax(top)
	}
	if p.legendTable || strings.Contains(p.queries[0].legend, "{{instance}}") { // many lines: their fills would overlap
		b = b.FillOpacity(0)
	}
	if p.stacked {
		b = b.FillOpacity(35).Stacking(common.NewStackingConfigBuilder().Mode(common.StackingModeNormal).Group("A"))
	}
	if p.limits {
		b = b.ThresholdsStyle(common.NewGraphThresholdsStyleConfigBuilder().Mode(common.GraphThresholdsStyleModeDashed))
	}
	for i, q := range p.queries {
		if properties := q.style.properties(); properties != nil {
			b = b.OverrideByQuery(refID(i), properties)
		}
	}
	for _, c := range p.colors {
		b = b.OverrideByName(c.legend, []dashboard.DynamicConfigValue{fixedColor(c.color)})
	}
	return b.Build()
}

// axisTop is the minimum upper end of an axis. Without it, an axis with only zeros would
// end at 100.
var axisTop = map[unit]float64{number: 1, ratio: 0.1, requests: 0.1, rate: 0.1}

func (s style) properties() []dashboard.DynamicConfigValue {
	dashes := dashboard.DynamicConfigValue{Id: "custom.lineStyle", Value: map[string]any{"fill": "dash", "dash": []int{6, 6}}}
	empty := dashboard.DynamicConfigValue{Id: "custom.fillOpacity", Value: 0}
	apart := dashboard.DynamicConfigValue{Id: "custom.stacking", Value: map[string]any{"mode": "none", "group": "A"}}
	switch s {
	case lastWeek:
		return []dashboard.DynamicConfigValue{fixedColor(grey), dashes, empty, apart}
	case limit:
		return []dashboard.DynamicConfigValue{fixedColor(red), dashes, empty, apart}
	case good:
		return []dashboard.DynamicConfigValue{fixedColor(green)}
	case warning:
		return []dashboard.DynamicConfigValue{fixedColor(orange)}
	case bad:
		return []dashboard.DynamicConfigValue{fixedColor(red)}
	case neutral:
		return []dashboard.DynamicConfigValue{fixedColor(blue)}
	}
	return nil
}

func fixedColor(color string) dashboard.DynamicConfigValue {
	return dashboard.DynamicConfigValue{Id: "color", Value: map[string]any{"mode": "fixed", "fixedColor": color}}
}

func (p panel) timeline() (dashboard.Panel, error) {
	return statetimeline.NewPanelBuilder().
		MergeValues(true).
		ShowValue(common.VisibilityModeAuto).
		RowHeight(0.85).
		LineWidth(0).
		FillOpacity(75).
		PerPage(20).
		Legend(common.NewVizLegendOptionsBuilder().ShowLegend(false).DisplayMode(common.LegendDisplayModeList).Placement(common.LegendPlacementBottom)).
		Tooltip(common.NewVizTooltipOptionsBuilder().Mode(common.TooltipDisplayModeSingle)).
		ColorScheme(dashboard.NewFieldColorBuilder().Mode(dashboard.FieldColorModeIdThresholds)).
		Build()
}

// table joins its queries by their labels, which must be the same in all queries.
func (p panel) table() (dashboard.Panel, error) {
	names, places := map[string]string{}, map[string]int{}
	b := table.NewPanelBuilder().ShowHeader(true).CellHeight(common.TableCellHeightSm).
		Footer(common.NewTableFooterOptionsBuilder().Reducer([]string{}))
	for i, c := range p.columns {
		field := c.label
		if field == "" {
			field = p.valueField(c.query)
		}
		names[field], places[field] = c.title, i
		b = b.OverrideByName(c.title, c.properties())
	}
	hidden := map[string]bool{"Time": true}
	for _, label := range p.hidden {
		hidden[label] = true
	}
	for i := range p.queries {
		if _, shown := places[p.valueField(i)]; !shown {
			hidden[p.valueField(i)] = true
		}
	}
	if title, down := strings.CutPrefix(p.sort, "-"); title != "" {
		b = b.SortBy([]cog.Builder[common.TableSortByFieldState]{common.NewTableSortByFieldStateBuilder().DisplayName(title).Desc(down)})
	}
	if len(p.queries) > 1 {
		b = b.WithTransformation(dashboard.DataTransformerConfig{Id: "merge", Options: map[string]any{}})
	}
	return b.WithTransformation(dashboard.DataTransformerConfig{Id: "organize", Options: map[string]any{
		"excludeByName": hidden, "indexByName": places, "renameByName": names,
	}}).Build()
}

// valueField returns Grafana's name for the values of a query in a table.
func (p panel) valueField(place int) string {
	if len(p.queries) == 1 {
		return "Value"
	}
	return "Value #" + refID(place)
}

func (c column) properties() []dashboard.DynamicConfigValue {
	var properties []dashboard.DynamicConfigValue
	add := func(id string, value any) {
		properties = append(properties, dashboard.DynamicConfigValue{Id: id, Value: value})
	}
	add("noValue", "–")
	if c.width > 0 {
		add("custom.width", c.width)
	}
	if c.label == "" {
		add("unit", string(c.unit))
	}
	if c.states != nil {
		add("custom.align", "left")
	}
	if c.places != nil {
		add("decimals", *c.places)
	}
	if c.states != nil {
		add("mappings", mappings(c.states))
	}
	if c.steps != nil || c.states != nil {
		add("custom.cellOptions", map[string]any{"type": "color-text"})
	}
	if c.steps != nil {
		add("thresholds", thresholds(c.steps))
	}
	if c.links {
		add("links", drillDown())
	}
	return properties
}

// drillDown returns links to the other dashboards, for the server of a row.
func drillDown() []map[string]any {
	var links []map[string]any
	for _, to := range []struct{ uid, title string }{
		{"kamailio-overview", "Overview"}, {"kamailio-calls", "Calls"}, {"kamailio-gateways", "Gateways"}, {"kamailio-trunks", "Trunks"},
		{"kamailio-security", "Registrations & security"}, {"kamailio-resources", "Resources"}, {"kamailio-exporter", "Exporter"},
	} {
		links = append(links, map[string]any{
			"title": to.title + " of ${__data.fields.Instance}",
			"url": "/d/" + to.uid + "?${datasource:queryparam}&${cluster:queryparam}&var-job=${__data.fields.Job:percentencode}" +
				"&var-instance=${__data.fields.Instance:percentencode}&${__url_time_range}",
		})
	}
	return links
}

func thresholds(steps []step) *dashboard.ThresholdsConfig {
	config := dashboard.NewThresholdsConfig()
	config.Mode = dashboard.ThresholdsModeAbsolute
	config.Steps = []dashboard.Threshold{{Color: grey}} // from minus infinity
	for _, s := range steps {
		config.Steps = append(config.Steps, dashboard.Threshold{Color: s.color, Value: &s.from})
	}
	return config
}

func mappings(states []state) []dashboard.ValueMapping {
	options := map[string]dashboard.ValueMappingResult{}
	for i, s := range states {
		options[strconv.FormatFloat(s.value, 'f', -1, 64)] = dashboard.ValueMappingResult{Text: &s.text, Color: &s.color, Index: new(int32(i))}
	}
	return []dashboard.ValueMapping{{ValueMap: &dashboard.ValueMap{Type: dashboard.MappingTypeValueToText, Options: options}}}
}
