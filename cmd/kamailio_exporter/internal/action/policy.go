package action

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/adminapi"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/audit"
)

// Grant lets a user run one action with parameters that meet the constraints.
type Grant struct {
	Action string                `yaml:"action"`
	Params map[string]Constraint `yaml:"params"`
}

// Constraint narrows one parameter. At least one field must be set, and a value must
// meet all fields that are set.
type Constraint struct {
	Any     bool     `yaml:"any"`     // any value that the catalogue allows
	Enum    []string `yaml:"enum"`    // one of these
	Min     *int64   `yaml:"min"`     // of an int
	Max     *int64   `yaml:"max"`     // of an int
	Regexp  string   `yaml:"regexp"`  // must match the whole value
	Domains []string `yaml:"domains"` // host of a SIP URI, or part of an AOR after the @

	anchored *regexp.Regexp
}

// Empty reports whether no field is set.
func (c Constraint) Empty() bool {
	return !c.Any && len(c.Enum) == 0 && c.Min == nil && c.Max == nil && c.Regexp == "" && len(c.Domains) == 0
}

// Compile checks a constraint against the parameter that it narrows.
func (c *Constraint) Compile(p Param) error {
	switch {
	case c.Empty():
		return errors.New("is empty: give enum, min and max, regexp or domains, or any: true")
	case c.Any && (len(c.Enum) > 0 || c.Min != nil || c.Max != nil || c.Regexp != "" || len(c.Domains) > 0):
		return errors.New("any: true cannot be combined with other constraints")
	case p.Type != adminapi.Int && (c.Min != nil || c.Max != nil):
		return errors.New("is not an int: min and max do not apply")
	case p.Type != adminapi.String && c.Regexp != "":
		return errors.New("is not a string: regexp does not apply")
	case p.Type != adminapi.String && len(c.Domains) > 0:
		return errors.New("is not a URI: domains do not apply")
	case c.Min != nil && c.Max != nil && *c.Min > *c.Max:
		return errors.New("min is above max")
	}
	for _, e := range c.Enum {
		var value any = e
		switch p.Type {
		case adminapi.Int:
			value = Number(e)
		case adminapi.Bool:
			value = e == "true"
			if e != "true" && e != "false" {
				return fmt.Errorf("%q is not true or false", e)
			}
		}
		if _, why := p.Check(value); why != "" {
			return fmt.Errorf("%q %s", e, why)
		}
	}
	if c.Regexp != "" {
		var err error
		if c.anchored, err = anchor(c.Regexp); err != nil {
			return fmt.Errorf("regexp: %w", err)
		}
	}
	return nil
}

// Meets reports whether a value that the catalogue allows is granted.
func (c Constraint) Meets(value any) bool {
	text := fmt.Sprint(value)
	if len(c.Enum) > 0 && !slices.Contains(c.Enum, text) {
		return false
	}
	if n, ok := value.(int64); ok && (c.Min != nil && n < *c.Min || c.Max != nil && n > *c.Max) {
		return false
	}
	if c.anchored != nil && !c.anchored.MatchString(text) {
		return false
	}
	return len(c.Domains) == 0 || slices.Contains(c.Domains, domainOf(text))
}

// domainOf returns the host of a SIP URI or an AOR; "" if in doubt. URI parameters are
// not accepted, because one such as maddr sends the request to a different host.
func domainOf(text string) string {
	for _, scheme := range []string{"sip:", "sips:"} {
		text = strings.TrimPrefix(text, scheme)
	}
	if strings.ContainsAny(text, ";?%") || strings.Count(text, "@") > 1 {
		return ""
	}
	if _, host, ok := strings.Cut(text, "@"); ok {
		text = host
	}
	if at := strings.LastIndexByte(text, ':'); at > strings.LastIndexByte(text, ']') {
		text = text[:at]
	}
	return strings.ToLower(text)
}

// Account is the policy's input for one user.
type Account struct {
	Roles   []string
	Grants  []Grant
	Auditor bool // may read the operations of all users
	Webhook bool // is Alertmanager, which may send alerts and nothing else
}

// Policy defines who may do what. It is immutable.
type Policy struct {
	Catalogue *Catalogue
	users     map[string]*User
}

// User is a user of the policy.
type User struct {
	Name    string
	Auditor bool
	Webhook bool
	grants  map[string][]Grant // by action: at least one must match
}

// Grants returns the user's grants for an action. Without one, the action does not
// exist for the user.
func (u *User) Grants(action string) []Grant { return u.grants[action] }

// Sees reports whether a user may read a record: its own, or any record if it is an
// auditor.
func (u *User) Sees(r audit.Record) bool { return u.Auditor || r.User == u.Name }

// MayTarget reports whether a user may name a target with these parameters: one grant
// for an action of this module must allow those that the action has. An auditor sees
// all targets.
func (u *User) MayTarget(c *Catalogue, module string, args Args) bool {
	for name, grants := range u.grants {
		a := c.Get(name)
		if Module(name) != module || !slices.ContainsFunc(a.Params, func(p Param) bool { return args[p.Name] != nil }) {
			continue
		}
		for _, g := range grants {
			if !slices.ContainsFunc(a.Params, func(p Param) bool { return args[p.Name] != nil && !g.Params[p.Name].Meets(args[p.Name]) }) {
				return true
			}
		}
	}
	return u.Auditor
}

// MayShow reports whether a user might be allowed to name targets of this kind.
func (u *User) MayShow(c *Catalogue, k TargetKind) bool {
	for name := range u.grants {
		if Module(name) == k.Name && slices.ContainsFunc(c.Get(name).Params, func(p Param) bool { return slices.Contains(k.Params, p.Name) }) {
			return true
		}
	}
	return u.Auditor
}

// NewPolicy expands the roles and checks every grant against the catalogue.
func NewPolicy(c *Catalogue, roles map[string][]Grant, accounts map[string]Account) (*Policy, error) {
	p := &Policy{Catalogue: c, users: map[string]*User{}}
	if len(accounts) == 0 {
		return nil, errors.New("users: none are defined, so every request would be refused")
	}
	for _, name := range slices.Sorted(maps.Keys(roles)) {
		for i, g := range roles[name] {
			if _, err := p.compile(g); err != nil {
				return nil, fmt.Errorf("roles: %s: grant %d: %w", name, i+1, err)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(accounts)) {
		said := accounts[name]
		grants := slices.Clone(said.Grants)
		for _, role := range said.Roles {
			granted, ok := roles[role]
			if !ok {
				return nil, fmt.Errorf("users: %s: there is no role %q", name, role)
			}
			grants = append(grants, granted...)
		}
		if len(grants) == 0 && !said.Auditor && !said.Webhook {
			return nil, fmt.Errorf("users: %s: no grants: it could not run any action", name)
		}
		u := &User{Name: name, Auditor: said.Auditor, Webhook: said.Webhook, grants: map[string][]Grant{}}
		for i, g := range grants {
			compiled, err := p.compile(g)
			if err != nil {
				return nil, fmt.Errorf("users: %s: grant %d: %w", name, i+1, err)
			}
			u.grants[g.Action] = append(u.grants[g.Action], compiled)
		}
		p.users[name] = u
	}
	return p, nil
}

// User returns the user with this name, or nil.
func (p *Policy) User(name string) *User { return p.users[name] }

func (p *Policy) compile(g Grant) (Grant, error) {
	action := p.Catalogue.Get(g.Action)
	if action == nil {
		return g, fmt.Errorf("there is no action %q: kamailio_exporter --admin.print-grants lists them", g.Action)
	}
	compiled := Grant{Action: g.Action, Params: map[string]Constraint{}}
	for _, param := range action.Params {
		c, ok := g.Params[param.Name]
		if !ok {
			return g, fmt.Errorf("%s: parameter %s is not constrained: list the permitted values, or set any: true", g.Action, param.Name)
		}
		if err := c.Compile(param); err != nil {
			return g, fmt.Errorf("%s: parameter %s: %w", g.Action, param.Name, err)
		}
		compiled.Params[param.Name] = c
	}
	for name := range g.Params {
		if _, ok := compiled.Params[name]; !ok {
			return g, fmt.Errorf("%s has no parameter %q", g.Action, name)
		}
	}
	return compiled, nil
}

// Denied returns the parameter that is not granted; "" if one grant allows them all.
func (u *User) Denied(action *Action, args Args) (denied string) {
	for _, g := range u.grants[action.Name] {
		denied = ""
		for _, p := range action.Params {
			if !g.Params[p.Name].Meets(args[p.Name]) {
				denied = p.Name
				break
			}
		}
		if denied == "" {
			return ""
		}
	}
	return denied
}

// Print writes what every user may do, with the roles expanded, and then the actions
// that no user may run. alerts is called in between.
func (p *Policy) Print(w io.Writer, alerts func(io.Writer)) {
	granted := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(p.users)) {
		u := p.users[name]
		fmt.Fprintf(w, "%s%s%s\n", name, map[bool]string{true: " (auditor)"}[u.Auditor], map[bool]string{true: " (webhook: sends alerts)"}[u.Webhook])
		for _, action := range slices.Sorted(maps.Keys(u.grants)) {
			granted[action] = true
			for _, g := range u.grants[action] {
				fmt.Fprintf(w, "  %s", action)
				for _, param := range p.Catalogue.Get(action).Params {
					fmt.Fprintf(w, " %s=%s", param.Name, g.Params[param.Name])
				}
				fmt.Fprintln(w)
			}
		}
	}
	alerts(w)
	fmt.Fprintln(w, "not granted to any user")
	for _, action := range p.Catalogue.Names() {
		if !granted[action] {
			fmt.Fprintf(w, "  %s\n", action)
		}
	}
}

// Allows describes the granted values of a parameter, within the catalogue's bounds.
func (c Constraint) Allows(p Param) string {
	var parts []string
	values := c.Enum
	if len(values) == 0 {
		values = p.Enum
	}
	if p.Type == adminapi.Bool && len(values) == 0 {
		values = []string{"true", "false"}
	}
	switch {
	case len(values) > 0:
		parts = append(parts, strings.Join(values, "|"))
	case p.Type == adminapi.Int:
		least, most := p.Min, p.Max
		if c.Min != nil {
			least = max(least, *c.Min)
		}
		if c.Max != nil {
			most = min(most, *c.Max)
		}
		if least <= -1<<31 && most >= 1<<31-1 {
			parts = append(parts, "NUMBER")
			break
		}
		parts = append(parts, fmt.Sprintf("%d..%d", least, most))
	case c.Regexp != "":
		parts = append(parts, "/"+c.Regexp+"/")
	case len(c.Domains) == 0:
		parts = append(parts, fmt.Sprintf("TEXT (up to %d characters)", p.MaxLen))
	}
	if len(c.Domains) > 0 {
		parts = append(parts, "...@"+strings.Join(c.Domains, "|"))
	}
	return strings.Join(parts, " and ")
}

// String describes the constraint in a few words.
func (c Constraint) String() string {
	var parts []string
	if c.Any {
		parts = append(parts, "any")
	}
	if len(c.Enum) > 0 {
		parts = append(parts, "{"+strings.Join(c.Enum, ",")+"}")
	}
	if c.Min != nil || c.Max != nil {
		bound := func(n *int64) string {
			if n == nil {
				return ""
			}
			return fmt.Sprint(*n)
		}
		parts = append(parts, bound(c.Min)+".."+bound(c.Max))
	}
	if c.Regexp != "" {
		parts = append(parts, "/"+c.Regexp+"/")
	}
	if len(c.Domains) > 0 {
		parts = append(parts, "@"+strings.Join(c.Domains, "|"))
	}
	return strings.Join(parts, "&")
}
