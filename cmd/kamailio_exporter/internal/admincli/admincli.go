// Package admincli is the client of the admin endpoint: kamailio_exporter admin.
//
//	exec ─► list, run, log or rules ─► ask ─► the endpoint
//	report on stdout, and the exit code ◄─ Result, or Problem ◄─┘
package admincli

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf16"

	"github.com/alecthomas/kingpin/v2"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/adminapi"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/audit"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/cli"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/conf"
)

// command is the client of the admin endpoint, and what it is told.
type command struct {
	url       string
	tokenFile string
	cert, key string
	ca        string
	output    string
	timeout   time.Duration

	kind     string
	action   string
	params   []string
	dryRun   bool
	verified bool // what is not, is no success
	reason   string
	idem     string

	operation string
	limit     int
	files     []string
}

// Declare declares the command and its subcommands.
func Declare(app *kingpin.Application) cli.Run {
	c := &command{}
	cmd := cli.NewCommand(app, "admin", "Client of the exporter's admin endpoint.")
	cmd.Flag("url", "Where the endpoint listens: unix:/path, http://… or https://…").
		Envar("KAMAILIO_EXPORTER_ADMIN_URL").Default(adminapi.DefaultListen).StringVar(&c.url)
	cmd.Flag("token-file", "File with the token. Without one the endpoint goes by who is at the other end of its socket.").
		Envar("KAMAILIO_EXPORTER_ADMIN_TOKEN_FILE").PlaceHolder("FILE").StringVar(&c.tokenFile)
	cmd.Flag("tls-cert", "Client certificate, for https.").PlaceHolder("FILE").StringVar(&c.cert)
	cmd.Flag("tls-key", "Its key.").PlaceHolder("FILE").StringVar(&c.key)
	cmd.Flag("tls-ca", "CA of the endpoint's certificate.").PlaceHolder("FILE").StringVar(&c.ca)
	cmd.Flag("output", "text, for people, or json, as the endpoint answers.").Default("text").EnumVar(&c.output, "text", "json")
	cmd.Flag("timeout", "Longest time to wait; an action may take more than a minute.").Default("120s").DurationVar(&c.timeout)

	cmd.Command("list", "List what you may run.")
	show := cmd.Command("show", "List what actions can be about, such as the destinations of dispatcher.")
	show.Arg("kind", "What to list. Without it: the kinds.").StringVar(&c.kind)
	run := cmd.Command("run", "Run an action.")
	run.Arg("action", "Its name, from list.").Required().StringVar(&c.action)
	run.Arg("parameter", "NAME=VALUE for each of its parameters.").StringsVar(&c.params)
	run.Flag("dry-run", "Check everything, and send nothing to Kamailio.").BoolVar(&c.dryRun)
	run.Flag("require-verified", "End with 4 when nothing that can be read shows that it was done. On; --no-require-verified ends with 0 then.").Default("true").BoolVar(&c.verified)
	run.Flag("reason", "Why, for the audit log: the number of a ticket.").StringVar(&c.reason)
	run.Flag("key", "Idempotency-Key: the same key never does the same twice. Without one, a new one is made.").StringVar(&c.idem)
	log := cmd.Command("log", "Show the last operations, or one.")
	log.Arg("operation", "The one to show.").StringVar(&c.operation)
	log.Flag("limit", "How many.").Default("20").IntVar(&c.limit)
	cmd.Command("rules", "Show the rules for alerts: what they do, what is left of their budgets, and open breakers.")
	cmd.Command("token", "Make a token, and what to write into the configuration.")
	verify := cmd.Command("verify", "Check the chain of audit logs, and compare them with what the running exporter wrote.")
	verify.Arg("file", "The files of one log, oldest first. Without any: all that the exporter at --url writes.").StringsVar(&c.files)
	return c.exec
}

// exec runs a subcommand.
func (c *command) exec(ctx context.Context, name string, stdout, _ io.Writer) error {
	if err := conf.Timeout(c.timeout); err != nil {
		return fmt.Errorf("--timeout %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	switch strings.TrimPrefix(name, "admin ") {
	case "list":
		return c.list(ctx, stdout)
	case "show":
		return c.targets(ctx, stdout)
	case "run":
		return c.run(ctx, stdout)
	case "log":
		return c.log(ctx, stdout)
	case "rules":
		return c.rules(ctx, stdout)
	case "token":
		return makeToken(stdout)
	}
	return c.verify(ctx, stdout)
}

// verify checks audit logs. The running exporter knows how they have to end.
func (c *command) verify(ctx context.Context, w io.Writer) error {
	var running adminapi.AuditLogs
	_, err := c.get(ctx, adminapi.AuditPath, &running)
	if len(c.files) == 0 {
		if err != nil {
			return fmt.Errorf("the running exporter cannot be asked where its audit log is: %w", err)
		}
		for i, log := range running.Logs {
			fmt.Fprintf(w, "%s: ", log.File)
			if err := c.verifyRunning(ctx, w, i, func() []string { return audit.Files(log.File) }); err != nil {
				return err
			}
		}
		return nil
	}
	last, statErr := os.Stat(c.files[len(c.files)-1])
	for i, log := range running.Logs {
		if own, err := os.Stat(log.File); err == nil && statErr == nil && os.SameFile(own, last) {
			return c.verifyRunning(ctx, w, i, func() []string { return c.files })
		}
	}
	report, verifyErr := audit.Verify(c.files)
	if verifyErr != nil {
		return broken(report, verifyErr)
	}
	printReport(w, report)
	if report.Records == 0 {
		return nil
	}
	if err == nil {
		err = errors.New("the last of these files is not the one that it writes")
	}
	fmt.Fprintf(w, "not compared with the running exporter: %s\nthe last line has the SHA-256 %s: whether that line was edited, or more were behind it, only a copy elsewhere shows\n", err, report.Hash)
	return nil
}

// verifyRunning checks one of the logs of the running exporter.
func (c *command) verifyRunning(ctx context.Context, w io.Writer, log int, files func() []string) error {
	report, err := audit.VerifyRunning(files, func() (audit.Head, error) {
		var now adminapi.AuditLogs
		if _, err := c.get(ctx, adminapi.AuditPath, &now); err != nil {
			return audit.Head{}, err
		}
		if log >= len(now.Logs) {
			return audit.Head{}, errNoAnswer
		}
		return now.Logs[log], nil
	})
	if err != nil {
		return broken(report, err)
	}
	printReport(w, report)
	if report.Compared > 0 {
		fmt.Fprintf(w, "up to record %d it is what the running exporter wrote\n", report.Compared)
	}
	return nil
}

func broken(report audit.Report, err error) error {
	return errors.New(visible(fmt.Sprintf("%s (read: %s)", err, report), strconv.QuoteRune))
}

func printReport(w io.Writer, report audit.Report) {
	fmt.Fprintf(w, "%s: the chain holds\n", report)
	if report.First > 1 {
		fmt.Fprintf(w, "records 1 to %d are not in these files\n", report.First-1)
	}
}

func makeToken(w io.Writer) error {
	token, hash := adminapi.NewToken()
	_, err := fmt.Fprintf(w, "%s\n\n# Give the first line to the user; it is shown only here. For the configuration:\n    tokens: [{sha256: %s, expires: %s}]\n",
		token, hash, time.Now().UTC().AddDate(1, 0, 0).Format("2006-01-02"))
	return err
}

// client makes an HTTP client, and the URL to put paths behind.
func (c *command) open() (*http.Client, string, error) {
	transport := &http.Transport{DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: 16 << 10}
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	if path, ok := strings.CutPrefix(c.url, "unix:"); ok {
		path = "/" + strings.TrimLeft(path, "/") // unix:///run/… too
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		}
		return client, "http://localhost", nil
	}
	u, err := url.Parse(c.url)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
		return nil, "", errors.New("--url: want unix:/path, http://host:port or https://host:port")
	}
	tlsConfig := &tls.Config{MinVersion: tls.VersionTLS13}
	if c.cert != "" || c.key != "" {
		pair, err := tls.LoadX509KeyPair(c.cert, c.key)
		if err != nil {
			return nil, "", fmt.Errorf("--tls-cert and --tls-key: %w", err)
		}
		tlsConfig.Certificates = []tls.Certificate{pair}
	}
	if c.ca != "" {
		text, err := os.ReadFile(c.ca)
		if err != nil {
			return nil, "", fmt.Errorf("--tls-ca: %w", err)
		}
		tlsConfig.RootCAs = x509.NewCertPool()
		if !tlsConfig.RootCAs.AppendCertsFromPEM(text) {
			return nil, "", errors.New("--tls-ca: no certificate in PEM")
		}
	}
	transport.TLSClientConfig = tlsConfig
	return client, u.Scheme + "://" + u.Host, nil
}

// ask makes one request. After an error with sent, the endpoint may have got it.
func (c *command) ask(ctx context.Context, method, path string, body []byte, key string) (status int, text []byte, sent bool, err error) {
	httpClient, base, err := c.open()
	if err != nil {
		return 0, nil, false, err
	}
	r, err := http.NewRequestWithContext(ctx, method, base+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, false, err
	}
	if c.tokenFile != "" {
		token, err := os.ReadFile(c.tokenFile)
		if err != nil {
			return 0, nil, false, fmt.Errorf("--token-file: %w", err)
		}
		r.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if key != "" {
		r.Header.Set("Idempotency-Key", key)
	}
	resp, err := httpClient.Do(r)
	if err != nil {
		var dial *net.OpError
		notSent := errors.As(err, &dial) && dial.Op == "dial"
		if wrapped := (*url.Error)(nil); errors.As(err, &wrapped) {
			err = wrapped.Err
		}
		return 0, nil, !notSent, fmt.Errorf("%s: %w", c.url, err)
	}
	defer resp.Body.Close()
	text, err = io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	return resp.StatusCode, text, true, err
}

// answered is what the endpoint says, good or bad: both have what was read.
type answered struct {
	adminapi.Result
	problem adminapi.Problem // without a title: none
}

func (a *answered) decode(text []byte) error {
	if err := decode(text, &a.Result); err != nil {
		return err
	}
	return decode(text, &a.problem)
}

// decode reads an answer, with what a terminal would obey escaped: an answer may have
// passed on what anybody wrote, and the server may be another than it should be.
func decode(text []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var answer any
	err := d.Decode(&answer)
	if err == nil {
		if text, err = json.Marshal(escape(answer)); err == nil {
			d = json.NewDecoder(bytes.NewReader(text))
			d.UseNumber()
			err = d.Decode(into)
		}
	}
	if err != nil {
		return errNoAnswer
	}
	return nil
}

// escape escapes the texts of an answer.
func escape(value any) any {
	switch v := value.(type) {
	case string:
		return visible(v, strconv.QuoteRune)
	case []any:
		for i := range v {
			v[i] = escape(v[i])
		}
	case map[string]any:
		escaped := map[string]any{}
		for name, member := range v {
			escaped[visible(name, strconv.QuoteRune)] = escape(member)
		}
		return escaped
	}
	return value
}

// visible replaces what is not printable: control characters, and those that turn the
// direction of a text or cannot be seen.
func visible(text string, quote func(rune) string) string {
	var b strings.Builder
	for _, r := range text {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
		} else {
			b.WriteString(strings.Trim(quote(r), "'"))
		}
	}
	return b.String()
}

// asJSON writes an answer as the endpoint gave it, with escapes of JSON.
func asJSON(w io.Writer, text []byte) error {
	var line bytes.Buffer
	if err := json.Compact(&line, text); err != nil {
		return errNoAnswer
	}
	_, err := fmt.Fprintln(w, visible(line.String(), func(r rune) string {
		if r > 0xffff {
			high, low := utf16.EncodeRune(r)
			return fmt.Sprintf(`\u%04x\u%04x`, high, low)
		}
		return fmt.Sprintf(`\u%04x`, r)
	}))
	return err
}

var errNoAnswer = errors.New("this is no answer of an admin endpoint")

// get asks for something to read.
func (c *command) get(ctx context.Context, path string, into any) (text []byte, err error) {
	status, text, _, err := c.ask(ctx, http.MethodGet, path, nil, "")
	if err != nil {
		return nil, err
	}
	if status != http.StatusOK {
		var p answered
		if err := p.decode(text); err != nil {
			return nil, err
		}
		return nil, cli.Exit(cli.ExitRefused, p.words())
	}
	return text, decode(text, into)
}

// show asks for something to read, and prints it if that is to be JSON.
func (c *command) show(ctx context.Context, w io.Writer, path string, into any) (printed bool, err error) {
	text, err := c.get(ctx, path, into)
	if err != nil || c.output != "json" {
		return false, err
	}
	return true, asJSON(w, text)
}

func (a answered) words() string {
	words := a.problem.Title
	if a.Detail != "" {
		words += ": " + a.Detail
	}
	if a.problem.Retry > 0 {
		words += fmt.Sprintf(" (try again in %d s)", a.problem.Retry)
	}
	return words
}

func (c *command) list(ctx context.Context, w io.Writer) error {
	var all adminapi.Actions
	if printed, err := c.show(ctx, w, adminapi.ActionsPath, &all); printed || err != nil {
		return err
	}
	if len(all.Actions) == 0 {
		fmt.Fprintf(w, "%s may run nothing\n", all.User)
	}
	for i, a := range all.Actions {
		if i > 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "%s\n  %s\n", a.Name, a.Summary)
		for _, p := range a.Params {
			fmt.Fprintf(w, "    %s=%s  %s\n", p.Name, strings.Join(p.Granted, " or "), p.Help)
			for _, value := range slices.Sorted(maps.Keys(p.Bounds)) {
				fmt.Fprintf(w, "        for %s: %s\n", value, p.Bounds[value])
			}
		}
		if a.Targets != "" {
			fmt.Fprintf(w, "    existing targets: %s admin show %s\n", cli.ProgramName, a.Targets)
		}
		if a.Cooldown > 0 {
			fmt.Fprintf(w, "    not for %d s yet\n", a.Cooldown)
		}
	}
	return nil
}

// targets lists what actions can be about.
func (c *command) targets(ctx context.Context, w io.Writer) error {
	if c.kind == "" {
		var all adminapi.Kinds
		if printed, err := c.show(ctx, w, adminapi.TargetsPath, &all); printed || err != nil {
			return err
		}
		for _, kind := range all.Kinds {
			fmt.Fprintln(w, kind)
		}
		return nil
	}
	var all adminapi.Targets
	if printed, err := c.show(ctx, w, adminapi.TargetsPath+"/"+url.PathEscape(c.kind), &all); printed || err != nil {
		return err
	}
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, one := range all.Targets {
		for _, name := range all.Params {
			fmt.Fprintf(table, "%s=%v\t", name, one[name])
		}
		for _, name := range all.Fields {
			fmt.Fprintf(table, "%s %s\t", name, valueOr(one, name))
		}
		fmt.Fprintln(table)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if more := all.All - len(all.Targets); more > 0 {
		fmt.Fprintf(w, "and %d more\n", more)
	}
	return nil
}

// body makes the request: each parameter with the type that the action says.
func (c *command) body(ctx context.Context) ([]byte, error) {
	var all adminapi.Actions
	if _, err := c.get(ctx, adminapi.ActionsPath, &all); err != nil {
		return nil, err
	}
	i := slices.IndexFunc(all.Actions, func(a adminapi.Action) bool { return a.Name == c.action })
	if i < 0 {
		return nil, cli.Exit(cli.ExitRefused, fmt.Sprintf("%s may not run %s, or there is no such action: see %s admin list", all.User, c.action, cli.ProgramName))
	}
	params := map[string]any{}
	for _, given := range c.params {
		name, value, ok := strings.Cut(given, "=")
		if !ok {
			return nil, fmt.Errorf("%q: want NAME=VALUE", given)
		}
		if _, twice := params[name]; twice {
			return nil, fmt.Errorf("%s is given twice", name)
		}
		params[name] = value
		for _, p := range all.Actions[i].Params {
			if p.Name != name {
				continue
			}
			switch p.Type {
			case adminapi.Int:
				n, err := strconv.ParseInt(value, 10, 64)
				if err != nil {
					return nil, fmt.Errorf("%s: want a whole number", name)
				}
				params[name] = n
			case adminapi.Bool:
				b, err := strconv.ParseBool(value)
				if err != nil {
					return nil, fmt.Errorf("%s: want true or false", name)
				}
				params[name] = b
			}
		}
	}
	return json.Marshal(adminapi.Request{Params: params, Reason: c.reason})
}

func (c *command) run(ctx context.Context, w io.Writer) error {
	body, err := c.body(ctx)
	if err != nil {
		return err
	}
	path := adminapi.ActionsPath + "/" + url.PathEscape(c.action)
	if c.dryRun {
		path += "?dry_run=true"
	}
	if c.idem == "" {
		c.idem = rand.Text()
	}
	_, text, sent, err := c.ask(ctx, http.MethodPost, path, body, c.idem)
	var a answered
	if err == nil {
		err = a.decode(text)
	}
	if err != nil {
		if sent {
			return cli.Exit(cli.ExitUnknown, fmt.Sprintf("%s; nobody knows whether it was done: look with %s admin log, or run it again with --key=%s", err, cli.ProgramName, c.idem))
		}
		return err
	}
	if c.output == "json" {
		if err := asJSON(w, text); err != nil {
			return err
		}
	} else {
		a.print(w, c.action)
	}
	if a.problem.Title == "" {
		if a.Outcome == audit.Unverified && c.verified {
			return cli.Exit(cli.ExitUnverified, "")
		}
		return nil
	}
	code := map[audit.Outcome]int{audit.Refused: cli.ExitRefused, audit.Failed: cli.ExitFailed, audit.Contradicted: cli.ExitContradicted, audit.Unknown: cli.ExitUnknown}[a.Outcome]
	if code == 0 {
		code = cli.ExitTrouble
	}
	return cli.Exit(code, a.words())
}

// print shows an answer to a person.
func (a answered) print(w io.Writer, action string) {
	id := a.ID
	if id == "" {
		id = strings.TrimPrefix(a.problem.Instance, adminapi.OperationsPath+"/")
	}
	fmt.Fprintf(w, "%s: %s", action, strings.ReplaceAll(string(a.Outcome), "_", " "))
	switch {
	case a.DryRun:
		fmt.Fprint(w, ", a dry run: nothing was sent")
	case a.Verified:
		fmt.Fprint(w, ", verified")
	}
	if a.problem.Title == "" {
		fmt.Fprintf(w, " (%d ms)", a.Duration)
	}
	fmt.Fprintln(w)
	switch {
	case id == "/": // one of many alike
	case a.Outcome == audit.Refused:
		fmt.Fprintf(w, "in the audit log as %s\n", id)
	default:
		fmt.Fprintf(w, "operation %s\n", id)
	}
	if a.Detail != "" && a.problem.Title == "" {
		fmt.Fprintln(w, a.Detail)
	}
	if a.Would != nil {
		fmt.Fprintf(w, "would send %s", a.Would.Method)
		for _, p := range a.Would.Params {
			fmt.Fprintf(w, " %v", p)
		}
		fmt.Fprintln(w)
	}
	if len(a.Before) == 0 && len(a.After) == 0 {
		return
	}
	fields := audit.State{}
	maps.Copy(fields, a.Before)
	maps.Copy(fields, a.After)
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "\tbefore\tafter")
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		fmt.Fprintf(table, "%s\t%s\t%s\n", name, valueOr(a.Before, name), valueOr(a.After, name))
	}
	table.Flush()
}

func valueOr(m map[string]any, name string) string {
	if v, ok := m[name]; ok {
		return fmt.Sprint(v)
	}
	return "-"
}

func (c *command) log(ctx context.Context, w io.Writer) error {
	if c.operation != "" {
		var r audit.Record
		if printed, err := c.show(ctx, w, adminapi.OperationsPath+"/"+url.PathEscape(c.operation), &r); printed || err != nil {
			return err
		}
		fmt.Fprintf(w, "%s  %s (%s, %s)\n", when(r.Time), r.User, r.Auth, r.Source)
		if len(r.Params) > 0 {
			fmt.Fprintf(w, "%s\n", pairs(r.Params))
		}
		if r.Reason != "" {
			fmt.Fprintf(w, "reason: %s\n", r.Reason)
		}
		if r.Problem != "" {
			fmt.Fprintf(w, "problem: %s\n", r.Problem)
		}
		answered{Result: *adminapi.ResultOf(r)}.print(w, r.Action)
		return nil
	}
	var all adminapi.Operations
	if printed, err := c.show(ctx, w, fmt.Sprintf("%s?limit=%d", adminapi.OperationsPath, c.limit), &all); printed || err != nil {
		return err
	}
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "TIME (UTC)\tOPERATION\tUSER\tACTION\tOUTCOME\tREASON")
	for _, r := range all.Operations {
		outcome := strings.ReplaceAll(string(r.Outcome), "_", " ")
		if r.DryRun {
			outcome += " (dry run)"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", r.Time.UTC().Format(time.DateTime), r.ID, r.User, strings.TrimSpace(r.Action+" "+pairs(r.Params)), outcome, r.Reason)
	}
	return table.Flush()
}

// rules shows what becomes of alerts (docs/remediation.md).
func (c *command) rules(ctx context.Context, w io.Writer) error {
	var all adminapi.Rules
	if printed, err := c.show(ctx, w, adminapi.RulesPath, &all); printed || err != nil {
		return err
	}
	if !all.Receiver {
		fmt.Fprintln(w, "there is no section remediation: no alert does anything")
	}
	for i, r := range all.Rules {
		if i > 0 {
			fmt.Fprintln(w)
		}
		mode := "dry run"
		if r.Enforce {
			mode = "enforce"
		}
		fmt.Fprintf(w, "%s (%s)\n  %s: %s\n  %s, %d left of %s\n", r.Name, mode, r.On, r.Match, r.Action, r.Left, r.Budget)
		if r.Breaker != nil {
			fmt.Fprintf(w, "  BREAKER OPEN since %s: %s\n  close it with %s admin run %s rule=%s\n", when(r.Breaker.Since), r.Breaker.Why, cli.ProgramName, adminapi.ResetAction, r.Name)
		}
		for _, o := range r.Open {
			state := "its alert fires"
			if o.Resolved {
				state = "its alert is resolved: waits to be taken back"
			}
			if o.DryRun {
				state += ", a dry run"
			}
			fmt.Fprintf(w, "  since %s: %s (%s; operation %s)\n", when(o.Since), o.Target, state, o.ID)
		}
	}
	return nil
}

// when is in the zone of the audit log and of the page.
func when(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

func pairs(m map[string]any) string {
	parts := make([]string, 0, len(m))
	for _, name := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, fmt.Sprintf("%s=%v", name, m[name]))
	}
	return strings.Join(parts, " ")
}
