package collector

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
)

// Promotion exports a Kamailio statistic as a typed metric with its own name and help
// text. Kamailio does not report what a statistic of the operator's kamailio.cfg means, or
// whether it only increases; the operator knows both.
type Promotion struct {
	Statistic string // "group:name", as Kamailio writes it; may contain any bytes
	Kind      prometheus.ValueType
	Help      string
}

// ParsePromotion parses "group:name=help text". The name ends at the first "=" without a
// backslash before it. In the name, \\ is a backslash, \= an equals sign, and \xHH any
// byte. The label of kamailio_statistic uses \xHH too, for bytes that are not UTF-8.
func ParsePromotion(text string, kind prometheus.ValueType) (Promotion, error) {
	p := Promotion{Kind: kind}
	statistic, help, found, err := cutStatistic(text)
	if err != nil {
		return p, err
	}
	p.Statistic, p.Help = statistic, strings.TrimSpace(help)
	group, name, colon := strings.Cut(statistic, ":")
	switch {
	case !found || p.Help == "":
		return p, errors.New("no help text: write GROUP:NAME=HELP (in the name, \\= is an equals sign)")
	case !colon || group == "" || name == "":
		return p, fmt.Errorf("%q is not GROUP:NAME, as in script:calls", statistic)
	case metricWord(group) == "" || metricWord(name) == "":
		return p, fmt.Errorf("the group or the name of %q has no letter or digit for the name of a metric", statistic)
	case !utf8.ValidString(p.Help):
		return p, errors.New("the help text is not UTF-8")
	case kind != counter && strings.HasSuffix(p.MetricName(), "_total"):
		return p, fmt.Errorf("%s would be a gauge with the name of a counter; promote it as a counter, or leave it in kamailio_statistic", p.MetricName())
	}
	return p, nil
}

// cutStatistic splits text at the first unescaped "=" and unescapes the part before it.
func cutStatistic(text string) (statistic, help string, found bool, err error) {
	var name strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] == '=' {
			return name.String(), text[i+1:], true, nil
		}
		if text[i] != '\\' {
			name.WriteByte(text[i])
			continue
		}
		switch rest := text[i:]; {
		case isHexEscape(rest):
			b, _ := strconv.ParseUint(rest[2:4], 16, 8)
			name.WriteByte(byte(b))
			i += 3
		case strings.HasPrefix(rest, `\\`), strings.HasPrefix(rest, `\=`):
			name.WriteByte(rest[1])
			i++
		default:
			return "", "", false, errors.New(`a backslash in the name is written \\, an equals sign \=, and any byte \xHH`)
		}
	}
	return name.String(), "", false, nil
}

// MetricName returns kamailio_<group>_<name> in lower case. Each run of characters that
// are not ASCII letters or digits becomes one _, and is removed at the ends. The name of a
// counter ends in _total.
func (p Promotion) MetricName() string {
	group, name, _ := strings.Cut(p.Statistic, ":")
	full := "kamailio_" + metricWord(group) + "_" + metricWord(name)
	if p.Kind == counter && !strings.HasSuffix(full, "_total") {
		full += "_total"
	}
	return full
}

func metricWord(s string) string {
	words := strings.FieldsFunc(strings.ToLower(s), func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9')
	})
	return strings.Join(words, "_")
}

func (p Promotion) desc() *Desc {
	return NewDesc(p.MetricName(), p.Help, p.Kind, "statistic "+LabelValue(p.Statistic))
}

// CheckPromotions returns an error for the first promotion that cannot be exported:
// its statistic already has a metric, or its metric name is already in use. Metric names
// that start with one of the reserved words belong to other packages.
func CheckPromotions(promotions []Promotion, reserved ...string) error {
	builtIn := All(Options{})
	known := tablesOf(builtIn)
	owners := map[string]string{}
	for _, d := range ScrapeDescs() {
		owners[openMetricsFamily(d.Name)] = "the metric " + d.Name
	}
	for _, c := range builtIn {
		for _, d := range c.Descs() {
			owners[openMetricsFamily(d.Name)] = "the metric " + d.Name
		}
	}
	promoted := map[string]bool{}
	for _, p := range promotions {
		name := p.MetricName()
		family := openMetricsFamily(name)
		switch {
		case promoted[p.Statistic]:
			return fmt.Errorf("the statistic %q is promoted twice", p.Statistic)
		case known.metricOf(p.Statistic) != "":
			return fmt.Errorf("the statistic %q already has a metric: %s", p.Statistic, known.metricOf(p.Statistic))
		case owners[family] != "":
			return fmt.Errorf("the statistic %q would be named %s, which is taken by %s", p.Statistic, name, owners[family])
		}
		for _, word := range reserved {
			if strings.HasPrefix(name, word) {
				return fmt.Errorf("the statistic %q would be named %s, and names with %s are the exporter's own", p.Statistic, name, word)
			}
		}
		promoted[p.Statistic] = true
		owners[family] = fmt.Sprintf("the statistic %q", p.Statistic)
	}
	return nil
}

// TakenNames returns the names that no metric from another source may use: those of all
// collectors with these options, even if one is disabled or failed, so that a name
// never changes its meaning.
func TakenNames(o Options) map[string]bool {
	taken := map[string]bool{}
	descs := ScrapeDescs()
	for _, c := range All(o) {
		descs = append(descs, c.Descs()...)
	}
	for _, d := range descs {
		taken[d.Name], taken[openMetricsFamily(d.Name)] = true, true
	}
	return taken
}

// openMetricsFamily returns the name that must be unique: in OpenMetrics, the counter
// x_total belongs to the family x.
func openMetricsFamily(name string) string { return strings.TrimSuffix(name, "_total") }
