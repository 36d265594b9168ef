package kamrpc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// A client with several URIs checks each one before its first use, and again after
// Kamailio restarts: the URI must answer and lead to the same process as the others.
// Otherwise one page could mix two Kamailios, or calls could wait for a transport that
// accepts requests but delivers no reply (a FIFO with another reply directory: two ERROR
// lines in Kamailio's log per call).

const (
	uptimeMethod    = "core.uptime"
	processesMethod = "core.psx"

	// checkTime is the timeout of a check. Both calls take less than a millisecond.
	checkTime = time.Second
	// A URI that failed its check is tried again after a pause, which doubles each time.
	firstRecheck = time.Minute
	lastRecheck  = time.Hour
	// maxIdentity is enough for about 3,000 processes.
	maxIdentity = 256 << 10
	// idleRecheck is when a URI that no call has used is checked again, so that its
	// status stays current.
	idleRecheck = 5 * time.Minute
)

// Identity distinguishes a running Kamailio from others, and from itself after a
// restart. A field that the server does not report is empty and matches anything.
type Identity struct {
	UpSince   string    // core.uptime
	Processes []Process // core.psx: all processes, the main one first
}

// Process is one process of a Kamailio.
type Process struct {
	PID         string
	Description string
}

// Same reports whether both are the same running Kamailio. It compares the processes up
// to the shorter list, because Kamailio adds processes while it starts.
func (i Identity) Same(other Identity) bool {
	n := min(len(i.Processes), len(other.Processes))
	return (i.UpSince == other.UpSince || i.UpSince == "" || other.UpSince == "") &&
		slices.Equal(i.Processes[:n], other.Processes[:n])
}

// MainPID returns the process id of Kamailio's main process, as Kamailio sees it, or ""
// if it is unknown.
func (i Identity) MainPID() string {
	if len(i.Processes) == 0 {
		return ""
	}
	return i.Processes[0].PID
}

// String describes the process.
func (i Identity) String() string {
	var known []string
	if pid := i.MainPID(); pid != "" {
		known = append(known, "process "+pid)
	}
	if i.UpSince != "" {
		known = append(known, "up since "+i.UpSince)
	}
	if known == nil {
		return "unknown process"
	}
	return strings.Join(known, ", ")
}

// member is one transport of a client, with the state of its URI.
type member struct {
	Transport
	once  Transport // the same transport, except that it sends a request at most once
	state *uriState
}

// uriState is the state of a URI. It is guarded by roster.mu.
type uriState struct {
	place    int       // in the order of preference
	checked  bool      // it answers, and leads to the same Kamailio as the others
	stranger bool      // it led to another Kamailio when both were compared
	err      error     // of the last check
	until    time.Time // not tried before
	pause    time.Duration
	answered time.Time
}

// roster is the state of all URIs of one Kamailio. Sibling clients share it.
type roster struct {
	checking chan struct{} // one check at a time
	now      func() time.Time

	mu      sync.Mutex
	known   Identity // the Kamailio that the checked URIs lead to
	stale   bool     // Kamailio has been restarted since
	members []*uriState
}

func newRoster() *roster { return &roster{checking: make(chan struct{}, 1), now: time.Now} }

// URIStatus is the status of one URI. The URI is shown without its query, which could
// contain a password, because it becomes a label. Err is nil while the URI is in use.
type URIStatus struct {
	URI string
	Err error
}

// Status reports which URIs are in use, and why the others are not. It checks those that
// have not been used for a while. It returns once ctx is done at the latest, without the
// URIs whose status is not known by then. With a single URI it returns nothing.
func (c *Client) Status(ctx context.Context) (all []URIStatus) {
	if len(c.members) == 1 {
		return nil
	}
	for _, m := range c.members {
		err := c.status(ctx, m)
		if ctx.Err() != nil {
			break
		}
		uri, _, _ := strings.Cut(m.String(), "?")
		all = append(all, URIStatus{uri, err})
	}
	return all
}

func (c *Client) status(ctx context.Context, m *member) error {
	c.roster.expire(m.state)
	if err, known := c.roster.verdict(m.state); known {
		return err
	}
	leave, err := c.enter(ctx, uptimeMethod)
	if err != nil {
		return err
	}
	defer leave()
	return c.usable(ctx, m)
}

// Identity returns the identity of the Kamailio at the first URI.
func (c *Client) Identity(ctx context.Context) (Identity, error) {
	leave, err := c.enter(ctx, uptimeMethod)
	if err != nil {
		return Identity{}, err
	}
	defer leave()
	return c.identify(ctx, c.members[0])
}

// usable returns nil if the URI may be used. It checks the URI if that is unknown.
func (c *Client) usable(ctx context.Context, m *member) error {
	if len(c.members) == 1 {
		return nil
	}
	if err, known := c.roster.verdict(m.state); known {
		return err
	}
	select {
	case c.roster.checking <- struct{}{}:
		defer func() { <-c.roster.checking }()
	case <-ctx.Done():
		return fmt.Errorf("waiting for the check of the URI: %w", ctx.Err())
	}
	if err, known := c.roster.verdict(m.state); known { // checked by another goroutine
		return err
	}
	return c.check(ctx, m)
}

// check identifies the Kamailio at a URI and compares it with the others. The caller
// holds roster.checking.
func (c *Client) check(ctx context.Context, m *member) error {
	r := c.roster
	r.begin()
	reference, silent := c.otherChecked(m), []unanswered(nil)
	if reference == nil {
		// If two different Kamailios answer, the first URI decides.
		reference, silent = c.find(ctx, c.members[:slices.Index(c.members, m)])
	}
	begun := r.now()
	id, err := c.identify(ctx, m)
	if errors.Is(err, ErrUnreachable) && !errors.Is(err, ErrNoAnswer) {
		r.failed(unanswered{m, err, 0}, false)
		return r.reason(m.state)
	}
	if err != nil {
		silent = append(silent, unanswered{m, err, r.now().Sub(begun)})
		// If Kamailio hangs, no URI answers: that is not the fault of this one.
		others := c.members[slices.Index(c.members, m)+1:]
		if reference != nil {
			others = []*member{reference}
		}
		answering, more := c.find(ctx, others)
		if ctx.Err() != nil {
			return fmt.Errorf("canceled: %w", ctx.Err())
		}
		for _, s := range append(silent, more...) {
			r.failed(s, answering != nil)
		}
		return r.reason(m.state)
	}
	for _, s := range silent {
		r.failed(s, true)
	}
	switch {
	case reference == nil, r.before(m.state, reference.state) && !r.leadsTo(id):
		return r.first(m.state, id)
	case r.same(m.state, id):
		return nil
	}
	// Kamailio may have restarted since the reference was queried, or may still be
	// starting.
	again, err := c.identify(ctx, reference)
	if err != nil {
		return fmt.Errorf("cannot be compared with %s: %w", reference, err)
	}
	if id, err = c.identify(ctx, m); err != nil {
		return err
	}
	if err := r.first(reference.state, again); err != nil {
		return err
	}
	if r.same(m.state, id) {
		return nil
	}
	return r.strange(m.state, fmt.Errorf("%w (%s) than %s (%s): all URIs must lead to the same one", ErrOtherKamailio, id, reference, again))
}

// unanswered is a URI that did not reply to the check of its identity.
type unanswered struct {
	*member
	err    error
	waited time.Duration
}

// otherChecked returns the first transport, other than m, that is known to lead to this
// Kamailio.
func (c *Client) otherChecked(m *member) *member {
	for _, other := range c.members {
		if other != m && c.roster.isChecked(other.state) {
			return other
		}
	}
	return nil
}

// find tries the members until one answers; that one becomes the reference.
func (c *Client) find(ctx context.Context, members []*member) (reference *member, silent []unanswered) {
	for _, m := range members {
		if ctx.Err() != nil || !c.roster.eligible(m.state) {
			continue
		}
		begun := c.roster.now()
		id, err := c.identify(ctx, m)
		if err == nil && c.roster.first(m.state, id) == nil {
			return m, silent
		}
		silent = append(silent, unanswered{m, err, c.roster.now().Sub(begun)})
	}
	return nil, silent
}

// identify makes two calls of constant cost. It leaves time for other transports.
func (c *Client) identify(ctx context.Context, m *member) (id Identity, err error) {
	attempt, cancel := part(ctx, checkTime)
	defer cancel()
	var uptime, processes Value
	_, err = c.ask(attempt, m, m.Transport, uptimeMethod, nil, min(c.maxReply, maxIdentity), keep(&uptime))
	if err != nil && !errors.As(err, new(*Fault)) {
		if errors.Is(err, ErrUnreachable) && attempt.Err() != nil {
			err = fmt.Errorf("%w: %w", ErrNoAnswer, err)
		}
		return Identity{}, err
	}
	id.UpSince = uptime.Get("up_since").Text()
	// If this call fails, core.uptime alone has to be enough.
	_, _ = c.ask(attempt, m, m.Transport, processesMethod, nil, min(c.maxReply, maxIdentity), keep(&processes))
	for p := range processes.All("") {
		id.Processes = append(id.Processes, Process{p.Get("PID").Text(), p.Get("DSC").Text()})
	}
	return id, nil
}

// part returns a context with half of the remaining time, at most the given duration.
func part(ctx context.Context, most time.Duration) (context.Context, context.CancelFunc) {
	if deadline, ok := ctx.Deadline(); ok {
		most = min(most, time.Until(deadline)/2)
	}
	return context.WithTimeout(ctx, most)
}

// verdict returns what is already known about a URI.
func (r *roster) verdict(s *uriState) (err error, known bool) { //nolint:revive // the function returns the error as its result
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case s.checked:
		return nil, true
	case r.now().Before(s.until):
		return s.err, true
	}
	return nil, false
}

// mayServe reports whether a call that got no answer elsewhere could use this URI.
func (r *roster) mayServe(s *uriState) bool {
	err, known := r.verdict(s)
	return !known || err == nil
}

func (r *roster) isChecked(s *uriState) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return s.checked
}

// eligible reports whether a URI may be the reference for the others.
func (r *roster) eligible(s *uriState) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !s.stranger && !r.now().Before(s.until)
}

// before reports whether a URI takes precedence over another if they lead to different
// Kamailios: it comes first and has not led elsewhere before.
func (r *roster) before(s, other *uriState) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return s.place < other.place && !s.stranger
}

// first makes a URI the reference for the others. A URI that led elsewhere can never be
// the reference: the Kamailio that it should lead to may just be down.
func (r *roster) first(s *uriState, id Identity) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.stranger {
		return s.err
	}
	if !r.known.Same(id) {
		r.forget()
	}
	r.known = id
	r.good(s)
	return nil
}

// leadsTo reports whether an identity is that of the Kamailio in use.
func (r *roster) leadsTo(id Identity) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.known.Same(id)
}

// same compares a URI with the others, and allows its use if it leads to the same
// Kamailio.
func (r *roster) same(s *uriState, id Identity) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.known.Same(id) {
		return false
	}
	r.good(s)
	return true
}

// good marks a URI as usable. It is called with mu held.
func (r *roster) good(s *uriState) {
	*s = uriState{place: s.place, checked: true, answered: r.now()}
}

// failed records why a URI is not used. others reports whether Kamailio answers at
// another URI.
func (r *roster) failed(u unanswered, others bool) {
	slow := errors.Is(u.err, ErrNoAnswer)
	if slow && others {
		u.err = fmt.Errorf("%w, while Kamailio answers at another URI", ErrNoAnswer)
		if silence := u.Traits().Silence; silence != "" {
			u.err = fmt.Errorf("%w: %s", u.err, silence)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s := u.state
	s.checked = false
	switch {
	case s.stranger:
		return
	case others && (slow || !errors.Is(u.err, ErrUnreachable)):
		r.rest(s)
	case slow: // do not try it again in the same call
		s.until = r.now().Add(u.waited)
	}
	// A missing socket costs Kamailio nothing, and can appear at any time.
	s.err = u.err
}

// reason returns why a URI was not used when it was last tried.
func (r *roster) reason(s *uriState) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return s.err
}

// strange records that a URI leads to another Kamailio.
func (r *roster) strange(s *uriState, err error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	s.checked, s.stranger, s.err = false, true, err
	r.rest(s)
	return err
}

// rest pauses the checks of a URI. It is called with mu held.
func (r *roster) rest(s *uriState) {
	s.pause = min(max(2*s.pause, firstRecheck), lastRecheck)
	s.until = r.now().Add(s.pause)
}

// met records when the Kamailio in use was started. After a restart, each URI is
// checked again.
func (r *roster) met(start string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if start == "" || r.known.UpSince == "" || start == r.known.UpSince {
		return
	}
	r.stale = true // a running check still compares with the previous one
	r.forget()
}

// begin starts a check.
func (r *roster) begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stale {
		r.stale, r.known = false, Identity{}
		r.forget()
	}
}

// forget makes all URIs be checked again. It is called with mu held.
func (r *roster) forget() {
	for _, s := range r.members {
		s.checked, s.until, s.pause = false, time.Time{}, 0
	}
}

// doubt makes a URI be checked before its next call: it accepted a request without
// answering, or was unreachable.
func (r *roster) doubt(s *uriState) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s.checked = false
}

func (r *roster) heard(s *uriState) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s.answered = r.now()
}

// expire discards what is known about a URI that no call has used for a while.
func (r *roster) expire(s *uriState) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s.checked && r.now().Sub(s.answered) > idleRecheck {
		s.checked = false
	}
}

// join adds transports. Those with a known URI share its state.
func (r *roster) join(transports []Transport, known []*member) (all []*member) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, transport := range transports {
		m := &member{Transport: transport, once: transport}
		if resend, ok := transport.(resender); ok {
			m.once = resend.once()
		}
		for _, k := range known {
			taken := slices.ContainsFunc(all, func(other *member) bool { return other.state == k.state })
			if !taken && k.String() == transport.String() {
				m.state = k.state
				break
			}
		}
		if m.state == nil {
			m.state = &uriState{place: len(r.members)}
			r.members = append(r.members, m.state)
		}
		all = append(all, m)
	}
	return all
}
