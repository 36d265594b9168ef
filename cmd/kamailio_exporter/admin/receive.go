package admin

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// webhookPath is where Alertmanager sends its notifications.
const webhookPath = "/v1/alertmanager"

// alerts takes a notification. Only a webhook's credentials are good for it, and
// for nothing else; without rules there is no such path.
//
// Alertmanager sends a notification again after a 5xx, and drops it after a 4xx
// (notify/util.go). What a guard rail refuses is refused again a moment later, so it
// is 202 like what was done. Only where nothing was done, and another try may be
// worth it, it is 503: Kamailio cannot be asked, or another change runs.
func (h *handler) alerts(w http.ResponseWriter, r *http.Request, s *state, who identity, path string, query url.Values) error {
	if !who.user.webhook || path != webhookPath || s.remediation == nil {
		return notFound.because("")
	}
	if r.Method != http.MethodPost || overridden(r.Header) {
		w.Header().Set("Allow", http.MethodPost)
		return badMethod.because("")
	}
	if len(query) > 0 {
		return badRequest.because("no query here")
	}
	n, err := readNotification(w, r)
	if err != nil {
		h.remedy.metrics.notified(notifiedBad)
		if p, ok := errors.AsType[*problem](err); ok {
			return p
		}
		return badRequest.because(err.Error())
	}
	verdicts, p := h.remedy.handle(r.Context(), s, who, source(r), n)
	if p == nil {
		p = sendAgain(verdicts)
	}
	if p != nil {
		h.remedy.metrics.notified(notifiedAgain)
		return p
	}
	h.remedy.metrics.notified(notifiedTaken)
	return answer(w, http.StatusAccepted, map[string]any{"results": verdicts})
}

// sendAgain is the problem that has Alertmanager try again; nil if it need not. Its
// words are what Alertmanager's log will say.
func sendAgain(verdicts []verdict) *problem {
	if slices.ContainsFunc(verdicts, func(v verdict) bool { return v.Outcome != Refused }) {
		return nil
	}
	var why []string
	for _, v := range verdicts {
		if v.again {
			why = append(why, fmt.Sprintf("rule %s: %s: %s", v.Rule, v.By, v.Detail))
		}
	}
	if len(why) == 0 {
		return nil
	}
	return notDone.later(strings.Join(why[:min(len(why), 3)], "; "), turnWait)
}

// seesRules: who may see everything, or close a breaker.
func seesRules(who identity) bool {
	return who.user.auditor || len(who.user.grants[ResetAction]) > 0
}

// listRules tells how the rules are.
func (h *handler) listRules(w http.ResponseWriter, _ *http.Request, s *state, who identity, query url.Values) error {
	if !seesRules(who) {
		return notFound.because("")
	}
	if len(query) > 0 {
		return badRequest.because("no query here")
	}
	if s.remediation == nil {
		return answer(w, http.StatusOK, map[string]any{"receiver": false, "rules": []RuleInfo{}})
	}
	return answer(w, http.StatusOK, map[string]any{"receiver": true, "rules": h.remedy.infos(s.remediation)})
}
