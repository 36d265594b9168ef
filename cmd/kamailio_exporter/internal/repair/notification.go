package repair

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"time"
)

// MaxNotification is the maximum size of a notification, in bytes.
const MaxNotification = 1 << 20

const maxAlerts = 100

// notification is one webhook request of Alertmanager: a group of alerts. Anyone who
// can create alerts controls its content, so it is a hint, not a command.
type notification struct {
	group  string // hash of Alertmanager's group key
	alerts []alert
}

// alert is one alert of the group. Annotations and URLs are not read at all.
type alert struct {
	status      string // of this alert; may differ from the group's
	fingerprint string
	labels      map[string]string
	starts      time.Time
	ends        time.Time
}

var fingerprintPattern = regexp.MustCompile(`^[0-9a-f]{1,16}$`)

// errTruncated means that Alertmanager left alerts out. It does not say which, so none
// is acted on.
var errTruncated = errors.New("alerts were left out of it: take max_alerts out of the webhook's configuration")

// parseNotification reads version 4 of the webhook's body (Alertmanager,
// notify/webhook/webhook.go and template/template.go).
func parseNotification(text []byte) (notification, error) {
	var body struct {
		Version   string `json:"version"`
		GroupKey  string `json:"groupKey"`
		Truncated uint64 `json:"truncatedAlerts"`
		Alerts    []struct {
			Status      string            `json:"status"`
			Labels      map[string]string `json:"labels"`
			StartsAt    time.Time         `json:"startsAt"`
			EndsAt      time.Time         `json:"endsAt"`
			Fingerprint string            `json:"fingerprint"`
		} `json:"alerts"`
	}
	d := json.NewDecoder(bytes.NewReader(text))
	if err := d.Decode(&body); err != nil {
		return notification{}, errors.New("not an Alertmanager notification") // without the parser's message, which quotes the body
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return notification{}, errors.New("unexpected data after the notification")
	}
	switch {
	case body.Version != "4":
		return notification{}, errors.New(`not a notification of version "4"`)
	case body.Truncated != 0:
		return notification{}, errTruncated
	case len(body.Alerts) > maxAlerts:
		return notification{}, fmt.Errorf("more than %d alerts in a group: let Alertmanager group by more labels", maxAlerts)
	}
	n := notification{group: fmt.Sprintf("%x", sha256.Sum256([]byte(body.GroupKey)))[:16]}
	for _, a := range body.Alerts {
		if a.Status != onFiring && a.Status != onResolved || !fingerprintPattern.MatchString(a.Fingerprint) || a.StartsAt.IsZero() {
			return notification{}, errors.New("an alert lacks status, fingerprint or startsAt")
		}
		n.alerts = append(n.alerts, alert{a.Status, a.Fingerprint, a.Labels, a.StartsAt.UTC(), a.EndsAt.UTC()})
	}
	return n, nil
}
