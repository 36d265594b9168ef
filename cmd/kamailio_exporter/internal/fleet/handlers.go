package fleet

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/go-kit/log/level"

	"github.com/kamailio-exporter/kamailio_exporter/collector"
)

// Probe serves GET /probe?target=NAME_OR_URI[&module=NAME][&collect[]=NAME...]: the
// metrics of one Kamailio. A refused request gets a 4xx with one line of text, and no
// connection is made.
func (f *Fleet) Probe(w http.ResponseWriter, r *http.Request) {
	s, module, err := f.wanted(r)
	if err != nil {
		f.refuse(w, err)
		return
	}
	defer f.release(s)
	f.metrics.probes.WithLabelValues(string(s.page.Serve(w, r, module))).Inc()
}

// wanted returns the session and the module that a request selects. The caller must
// release the session.
func (f *Fleet) wanted(r *http.Request) (*session, Module, error) {
	query := r.URL.Query()
	targets, modules := query["target"], query["module"]
	switch {
	case len(targets) != 1 || targets[0] == "":
		return nil, Module{}, &refusal{http.StatusBadRequest, "no_target", "target: give one, such as /probe?target=NAME; GET /sd lists the names"}
	case len(modules) > 1:
		return nil, Module{}, &refusal{http.StatusBadRequest, "unknown_module", "module: give at most one"}
	}
	s, module, err := f.acquire(r.Context(), targets[0], strings.Join(modules, ""))
	if err != nil {
		return nil, Module{}, err
	}
	if module, err = module.narrow(query["collect[]"], query["exclude[]"]); err != nil {
		f.release(s)
		return nil, Module{}, err
	}
	return s, module, nil
}

// narrow returns the module with only the collectors that a request selects. With
// selected collectors, the SIP probes and the xhttp_prom page are left out, as at
// /metrics.
func (m Module) narrow(include, exclude []string) (Module, error) {
	left, err := collector.Select(m.Collectors, include, exclude)
	if unknown := (*collector.UnknownCollectorError)(nil); errors.As(err, &unknown) {
		why := "there is no such collector"
		if slices.Contains(collector.Names(collector.All(collector.Options{})), unknown.Name) {
			why = "this collector is not in the module"
		}
		return m, &refusal{http.StatusBadRequest, "unknown_collector", fmt.Sprintf("collect[], exclude[]: %s; the collectors are: %s", why, strings.Join(m.Collectors, ", "))}
	}
	if len(left) == 0 {
		return m, &refusal{http.StatusBadRequest, "unknown_collector", "collect[] and exclude[] leave no collector"}
	}
	whole := len(include) == 0
	return Module{Collectors: left, SIP: m.SIP && whole, Script: m.Script && whole}, nil
}

func (f *Fleet) refuse(w http.ResponseWriter, err error) {
	why := (*refusal)(nil)
	if !errors.As(err, &why) {
		why = &refusal{http.StatusInternalServerError, "fault", err.Error()}
	}
	f.metrics.refused.WithLabelValues(why.reason).Inc()
	_ = level.Debug(f.opts.Logger).Log("msg", "probe refused", "reason", why.reason, "err", why.text)
	http.Error(w, why.text, why.status)
}

// group is an entry of Prometheus' HTTP service discovery.
type group struct {
	Targets []string          `json:"targets"`
	Labels  map[string]string `json:"labels,omitempty"`
}

// Discover serves GET /sd, the targets of the file for Prometheus' http_sd_configs.
func (f *Fleet) Discover(w http.ResponseWriter, _ *http.Request) {
	groups := []group{}
	for _, t := range f.Targets() {
		groups = append(groups, group{[]string{t.Name}, t.Labels})
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(groups) // fails only if the client has disconnected
}

// ReloadNow serves POST /-/reload. It refuses browsers: any web page could make one send
// this request to an exporter that only its user can reach.
func (f *Fleet) ReloadNow(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Origin") != "" || r.Header.Get("Sec-Fetch-Site") != "" {
		http.Error(w, "not available to browsers: use curl -X POST", http.StatusForbidden)
		return
	}
	if err := f.Reload(); err != nil {
		http.Error(w, "not in use: "+err.Error(), http.StatusInternalServerError)
		return
	}
	fmt.Fprintln(w, "in force")
}
