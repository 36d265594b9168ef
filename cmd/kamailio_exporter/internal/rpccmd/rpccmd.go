// Package rpccmd implements the command rpc, which calls one RPC as a collector would.
package rpccmd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"unicode/utf8"

	"github.com/alecthomas/kingpin/v2"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/cli"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/target"
	"github.com/kamailio-exporter/kamailio_exporter/collector"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

// ExitNoAnswer is the exit code if Kamailio did not reply. Codes 0 to 3 are those of
// "admin run".
const ExitNoAnswer = 4

// command has the flags and arguments of the command.
type command struct {
	output string
	method string
	params []string
}

// Declare declares the rpc command.
func Declare(app *kingpin.Application) cli.Run {
	s, c := &cli.Settings{}, &command{}
	cmd := cli.NewCommand(app, "rpc", "Call one RPC that only reads, as a scrape would, and print the reply as JSON. Without a method it lists the methods that it may call. It refuses a call that can crash this version of Kamailio, or that is above the limits of a scrape. Passwords in the reply are hidden.")
	s.DeclareClient(cmd, "kamailio.", "collector.usrloc_contacts.limit", "collector.dialog_age.limit", "collector.tls_connections.limit")
	cmd.Flag("output", "Format of the reply: text (indented) or json (on one line).").
		Default("text").EnumVar(&c.output, "text", "json")
	cmd.Arg("method", "RPC method, such as core.uptime.").StringVar(&c.method)
	cmd.Arg("param", "Parameters, as for kamcmd: digits are a number, anything else is a string; s: before a parameter makes it a string (s:5060). Write -- before a parameter that begins with a dash.").
		StringsVar(&c.params)
	return func(ctx context.Context, _ string, stdout, _ io.Writer) error {
		return c.run(ctx, s, stdout)
	}
}

func (c *command) run(ctx context.Context, s *cli.Settings, stdout io.Writer) error {
	if err := s.Complete(); err != nil {
		return cli.UsageError("rpc", err)
	}
	if c.method == "" {
		return c.list(stdout)
	}
	price, err := readable(c.method)
	if err != nil {
		return err
	}
	t, err := s.Chosen()
	if err != nil {
		return cli.UsageError("rpc", err)
	}
	client, err := t.Open(nil)
	if err != nil {
		return err
	}
	params := make([]any, len(c.params))
	for i, text := range c.params {
		params[i] = rpcParam(text)
	}
	ctx, cancel := context.WithTimeout(ctx, 3*t.Limits.RPCTimeout) // includes the calls that check whether the method can be called
	defer cancel()
	result, err := askOne(ctx, t, client, price, params)
	if err != nil {
		return rpcError(err)
	}
	return c.print(stdout, result, params)
}

// readable refuses methods that "rpc" does not call.
func readable(method string) (kamrpc.Price, error) {
	price, ok := kamrpc.PriceOf(method)
	switch {
	case !ok:
		for _, unread := range collector.Unread() {
			if slices.Contains(strings.Split(unread.Method, ", "), method) {
				return price, cli.Exit(cli.ExitRefused, fmt.Sprintf("%s is never called: %s", method, unread.Why))
			}
		}
		return price, cli.Exit(cli.ExitRefused, fmt.Sprintf("%s is not among the RPCs that the exporter may call; %s rpc lists them", method, cli.ProgramName))
	case price.Effect != kamrpc.Read:
		return price, cli.Exit(cli.ExitRefused, fmt.Sprintf("%s changes Kamailio (%s), and rpc only reads; use %s admin run (docs/admin.md)", method, price.Effect, cli.ProgramName))
	case alwaysDangerous(price):
		return price, cli.Exit(cli.ExitRefused, fmt.Sprintf("%s is never called: it %s (%s)", method, dangers(price), price.Note))
	}
	return price, nil
}

// alwaysDangerous reports whether a method is refused on every version of Kamailio.
func alwaysDangerous(price kamrpc.Price) bool {
	return slices.ContainsFunc(price.Dangers, func(d kamrpc.Danger) bool { return d.Versions == "" && d.MinParams == 0 })
}

func dangers(price kamrpc.Price) string {
	var all []string
	for _, d := range price.Dangers {
		text := d.What
		if d.Versions != "" {
			text += " (" + d.On() + ")"
		}
		all = append(all, text)
	}
	return strings.Join(all, "; ")
}

// rpcParam parses a parameter as kamcmd does (utils/kamcmd/kamcmd.c, parse_arg).
func rpcParam(text string) any {
	if i, err := strconv.ParseInt(text, 10, 32); err == nil {
		return int(i)
	}
	if decimal.MatchString(text) {
		if f, err := strconv.ParseFloat(text, 64); err == nil {
			return f
		}
	}
	return strings.TrimPrefix(text, "s:")
}

// decimal is a number with a decimal point. kamcmd also reads "inf", "nan" and
// hexadecimal numbers as numbers, but these are more often names.
var decimal = regexp.MustCompile(`^[+-]?(\d+\.\d*|\.\d+)$`)

// askOne makes the call if the server has the method and the size of the reply is within
// the limits.
func askOne(ctx context.Context, t target.Target, client *kamrpc.Client, price kamrpc.Price, params []any) (kamrpc.Value, error) {
	call := func(method string, params ...any) (kamrpc.Value, error) {
		ctx, cancel := context.WithTimeout(ctx, t.Limits.RPCTimeout)
		defer cancel()
		return client.Call(ctx, method, params...)
	}
	list, err := call("system.listMethods")
	if err != nil && !errors.As(err, new(*kamrpc.Fault)) {
		return list, err
	}
	methods := list.Texts()
	// Kamailio logs an ERROR line for each call of an unknown method.
	if len(methods) > 0 && !slices.Contains(methods, price.Method) {
		if strings.HasPrefix(price.Method, "drouting.") { // kamailio.cfg may serve it
			ctx, cancel := context.WithTimeout(ctx, t.Limits.RPCTimeout)
			defer cancel()
			return client.CallScripted(ctx, price.Method, params...)
		}
		return kamrpc.Value{}, cli.Exit(cli.ExitRefused, fmt.Sprintf("this Kamailio has no RPC %s: its module is not loaded, or its version lacks it", price.Method))
	}
	if err := withinLimits(ctx, t, client, price, methods); err != nil {
		return kamrpc.Value{}, err
	}
	return call(price.Method, params...)
}

// withinLimits checks the size of a reply that grows, if Kamailio reports that size.
func withinLimits(ctx context.Context, t target.Target, client *kamrpc.Client, price kamrpc.Price, methods []string) error {
	if price.Cost != kamrpc.Growing {
		return nil
	}
	session := collector.NewSession(client, t.Limits.RPCTimeout, methods)
	for _, c := range collector.All(t.Options) {
		g, ok := c.(interface{ Guard() collector.Guard })
		if !ok || g.Guard().Method != price.Method || g.Guard().Size == nil {
			continue
		}
		guard, name := g.Guard(), "--collector."+c.Name()+".limit"
		size, known, err := guard.Size(ctx, session)
		switch {
		case err != nil:
			return fmt.Errorf("reading the size of the reply of %s: %w", price.Method, err)
		case !known:
			return cli.Exit(cli.ExitRefused, fmt.Sprintf("%s is not called, because Kamailio does not report the number of %s", price.Method, price.Of))
		case size > float64(guard.Limit):
			return cli.Exit(cli.ExitRefused, fmt.Sprintf("%s: there are %.0f %s, above the limit of %d. If Kamailio can afford it, allow it with %s=%.0f (%s)", price.Method, size, price.Of, guard.Limit, name, size, price.Note))
		}
	}
	return nil
}

// rpcError gives an error the exit code of its outcome.
func rpcError(err error) error {
	code := ExitNoAnswer
	switch {
	case cli.IsCoded(err):
		return err
	case errors.Is(err, kamrpc.ErrNotPriced), errors.Is(err, kamrpc.ErrDangerous):
		code = cli.ExitRefused
	case errors.Is(err, kamrpc.ErrMethodNotFound):
		return cli.Exit(cli.ExitRefused, err.Error()+": this Kamailio does not have it, and kamailio.cfg does not serve it over HTTP")
	case errors.As(err, new(*kamrpc.Fault)):
		code = cli.ExitFailed
	case errors.Is(err, kamrpc.ErrTooLarge):
		return cli.Exit(cli.ExitRefused, err.Error()+"; raise --kamailio.max-reply-size to allow it")
	}
	return cli.Exit(code, err.Error())
}

// secretName matches the names of values that must not be shown: uac.reg_dump returns
// auth_password in clear text, and scripts can have such settings (cfg.get) and items of
// hash tables (htable.get).
var secretName = regexp.MustCompile(`(?i)passw|passphrase|secret|token|(^|_)(ha1b?|pwd?|pass)($|_)`)

// uriPassword matches a URI with user and password, such as an auth_proxy.
var uriPassword = regexp.MustCompile(`([A-Za-z][A-Za-z0-9+.-]*:(?://)?[^\s:@/;?]+):[^\s@/]+@`)

// hidden replaces a secret.
const hidden = "(hidden)"

func (c *command) print(w io.Writer, result kamrpc.Value, params []any) error {
	// The reply to a query for a secret does not contain its name, so check the
	// parameters.
	secret := slices.ContainsFunc(params, func(p any) bool {
		text, ok := p.(string)
		return ok && (c.method == "cfg.get" || c.method == "htable.get") && secretName.MatchString(text)
	})
	out := appendValue(nil, result, secret)
	if c.output == "text" {
		var indented bytes.Buffer
		if err := json.Indent(&indented, out, "", "  "); err != nil {
			return err
		}
		out = indented.Bytes()
	}
	_, err := fmt.Fprintf(w, "%s\n", out)
	return err
}

// appendValue writes a value as JSON, and keeps the order and the repeated names of the
// reply. It escapes invalid UTF-8 and terminal control characters.
func appendValue(b []byte, v kamrpc.Value, secret bool) []byte {
	switch v.Kind() {
	case kamrpc.Array, kamrpc.Object:
		begin, end := byte('['), byte(']')
		if v.Kind() == kamrpc.Object {
			begin, end = '{', '}'
		}
		b = append(b, begin)
		first := true
		for m := range v.Members() {
			if !first {
				b = append(b, ',')
			}
			first = false
			if v.Kind() == kamrpc.Object {
				b = append(appendText(b, m.Name), ':')
			}
			b = appendValue(b, m.Value, secret || secretName.MatchString(m.Name))
		}
		return append(b, end)
	case kamrpc.Missing, kamrpc.Null:
		return append(b, "null"...)
	}
	switch {
	case secret:
		return appendText(b, hidden)
	case v.Kind() == kamrpc.String:
		return appendText(b, uriPassword.ReplaceAllString(v.Text(), "${1}:"+hidden+"@"))
	}
	return append(b, v.Text()...)
}

func appendText(b []byte, text string) []byte {
	b = append(b, '"')
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRuneInString(text[i:])
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r == utf8.RuneError && size == 1:
			b = fmt.Appendf(b, `\\x%02x`, text[i])
		case r < ' ' || r >= 0x7f && r < 0xa0 || r >= 0x2028 && r <= 0x202e || r >= 0x2066 && r <= 0x2069:
			b = fmt.Appendf(b, `\u%04x`, r)
		default:
			b = append(b, text[i:i+size]...)
		}
		i += size
	}
	return append(b, '"')
}

// list prints the methods that can be called.
func (c *command) list(w io.Writer) error {
	type row struct {
		Method    string   `json:"method"`
		Cost      string   `json:"cost"`
		Of        string   `json:"of,omitempty"`
		Dangerous string   `json:"dangerous,omitempty"`
		Versions  []string `json:"dangerous_versions,omitempty"` // version prefixes
		refused   string
	}
	rows := []row{}
	for _, price := range kamrpc.PriceList() {
		if price.Effect == kamrpc.Read && !alwaysDangerous(price) {
			r := row{Method: price.Method, Cost: price.Cost.String(), Of: price.Of, Dangerous: dangers(price)}
			for _, d := range price.Dangers {
				r.Versions = append(r.Versions, strings.Fields(d.Versions)...)
				if r.refused = "; refused on " + d.On(); d.MinParams > 0 {
					r.refused = fmt.Sprintf("; needs %d or more parameters", d.MinParams)
				}
			}
			rows = append(rows, r)
		}
	}
	if c.output == "json" {
		return json.NewEncoder(w).Encode(rows)
	}
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "METHOD\tCOST\tGROWS WITH")
	for _, r := range rows {
		fmt.Fprintf(table, "%s\t%s\t%s\n", r.Method, r.Cost, r.Of+r.refused)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprint(w, legend)
	return err
}

// legend explains the words of the list.
const legend = `
constant: the cost does not depend on load or data.
walk:     Kamailio counts in place; the time grows slowly, the reply does not.
growing:  the reply grows with the data; above a limit the call is refused.
refused:  on these versions of Kamailio the call can crash the server.
`
