package action

import (
	"context"
	"errors"
	"regexp"
	"strings"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/audit"
	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

// lookItem reads an item. A missing item is not an error, but a missing table is.
func lookItem(ctx context.Context, k Kamailio, a Args) (audit.State, error) {
	result, err := k.Call(ctx, "htable.get", a.text("table"), a.text("key"))
	switch {
	case isFault(err, "Key name doesn't exist"):
		return audit.State{"present": false}, nil
	case isFault(err, "No such htable"):
		return nil, errNoTarget
	case err != nil:
		return nil, err
	}
	value := result.Get("item/value")
	if n, ok := whole(value); ok && value.Kind() == kamrpc.Number {
		return audit.State{"present": true, "value": n}, nil
	}
	return audit.State{"present": true, "value": value.Text()}, nil
}

// lookItemAs reports whether the item has the requested value, without revealing its
// old value.
func lookItemAs(ctx context.Context, k Kamailio, a Args) (audit.State, error) {
	state, err := lookItem(ctx, k, a)
	if err != nil {
		return nil, err
	}
	return audit.State{"present": state.Is("present"), "as_asked": sameItem(a, state)}, nil
}

// lookItemNumber reports the item's value only if it is a number, because a text may be
// a secret.
func lookItemNumber(ctx context.Context, k Kamailio, a Args) (audit.State, error) {
	state, err := lookItem(ctx, k, a)
	if _, isText := state["value"].(string); isText {
		delete(state, "value")
	}
	return state, err
}

// lookItemThere reports only whether the item exists: permission to delete an item does
// not include permission to read it.
func lookItemThere(ctx context.Context, k Kamailio, a Args) (audit.State, error) {
	state, err := lookItem(ctx, k, a)
	if err == nil && !state.Is("present") {
		return nil, errNoTarget
	}
	delete(state, "value")
	return state, err
}

func sameItem(a Args, before audit.State) bool { return before["value"] == a["value"] }

func judgeItem(a Args, _, after audit.State, _ Guards) judgement {
	if sameItem(a, after) {
		return asAsked
	}
	return contradicted("Kamailio still reports another value")
}

func lookTable(ctx context.Context, k Kamailio, a Args) (audit.State, error) {
	tables, err := k.Call(ctx, "htable.listTables")
	if err != nil {
		return nil, err
	}
	found := false
	for t := range tables.All("") {
		if t.Get("name").Text() == a.text("table") {
			found = true
			if t.Get("dbtable").Text() == "" {
				return nil, &guardError{"the htable has no database table"}
			}
		}
	}
	if !found {
		return nil, errNoTarget
	}
	result, err := k.Call(ctx, "htable.stats")
	if err != nil {
		return nil, err
	}
	for t := range result.All("") {
		if t.Get("name").Text() == a.text("table") {
			if n, ok := whole(t.Get("all")); ok {
				return audit.State{"items": n}, nil
			}
		}
	}
	return nil, errUnreadable
}

func lookTree(ctx context.Context, k Kamailio, a Args) (audit.State, error) {
	result, err := k.Call(ctx, "mtree.summary")
	if err != nil {
		return nil, err
	}
	var state audit.State
	others := int64(0) // with db_table, Kamailio loads all trees again, whatever the name
	for t := range result.All("") {
		table := t.Get("table").Text()
		n, ok := whole(t.Get("item/nritems"))
		if !ok {
			return nil, errUnreadable
		}
		if table == a.text("tree") {
			state = audit.State{"items": n}
			continue
		}
		others += n
		if strings.HasPrefix(table, a.text("tree")) {
			// modules/mtree/mtree_mod.c: a name matches every tree whose name begins
			// with it.
			return nil, &guardError{"the name of another tree begins with this name, and Kamailio would reload both"}
		}
	}
	if state == nil {
		return nil, errNoTarget
	}
	state["items_of_others"] = others
	return state, nil
}

// IsName reports whether a text is a valid htable name.
func IsName(text string) bool { return tableName.MatchString(text) }

var tableName = regexp.MustCompile(`^` + namePattern + `$`)

// ReadCounter reads a numeric item of an htable. It returns 0 if the item is missing or
// not a number, which means that nothing was counted.
func ReadCounter(ctx context.Context, k Kamailio, table, key string) (int64, error) {
	if key == "" || len(key) > keyParam.MaxLen || strings.ContainsFunc(key, NotPrintable) {
		return 0, BadParameter.Because("the htable cannot have this key")
	}
	state, err := lookItem(ctx, k, Args{"table": table, "key": key})
	if err != nil {
		return 0, err
	}
	n, _ := state["value"].(int64)
	return n, nil
}

// lookBlocked looks up the value in the list of its kind. Before Kamailio 6.0 it prints
// nothing over JSON-RPC.
func lookBlocked(ctx context.Context, k Kamailio, a Args) (audit.State, error) {
	result, err := k.Call(ctx, "secfilter.print", a.text("kind"))
	switch {
	case errors.Is(err, kamrpc.ErrTooLarge):
		return nil, errUnreadable // also if the list is long: the reply may be incomplete
	case err != nil:
		return nil, err
	case result.Kind() != kamrpc.Object:
		return nil, errUnreadable
	}
	// secfilter ignores case and matches by prefix. The whitelist is checked first
	// (modules/secfilter/secfilter.c).
	value, state := strings.ToLower(a.text("value")), audit.State{"blocked": false}
	for kind := range result.Members() {
		for v := range kind.Value.All("Blacklisted/Value") {
			if strings.EqualFold(v.Text(), value) {
				state["blocked"] = true
			}
		}
		for v := range kind.Value.All("Whitelisted/Value") {
			if strings.HasPrefix(value, strings.ToLower(v.Text())) {
				state["allowed"] = true
			}
		}
	}
	return state, nil
}

func sameBlocked(_ Args, before audit.State) bool {
	return before.Is("blocked") && !before.Is("allowed")
}

func guardBlocked(_ Args, before audit.State, _ Guards) error {
	if before.Is("allowed") {
		return errors.New("an entry of secfilter's whitelist matches it. The whitelist takes precedence over the blacklist, so it would still be allowed")
	}
	return nil
}

// lookLists counts the entries of all secfilter lists. An empty text selects every kind
// (modules/secfilter/secfilter_rpc.c).
func lookLists(ctx context.Context, k Kamailio, _ Args) (audit.State, error) {
	result, err := k.Call(ctx, "secfilter.print", "")
	switch {
	case errors.Is(err, kamrpc.ErrTooLarge), errors.Is(err, kamrpc.ErrDangerous), errors.Is(err, kamrpc.ErrMethodNotFound):
		return nil, errUnreadable
	case err != nil:
		return nil, err
	case result.Kind() != kamrpc.Object:
		return nil, errUnreadable
	}
	blocked, allowed := int64(0), int64(0)
	for kind := range result.Members() {
		for range kind.Value.All("Blacklisted/Value") {
			blocked++
		}
		for range kind.Value.All("Whitelisted/Value") {
			allowed++
		}
	}
	return audit.State{"blocked": blocked, "allowed": allowed}, nil
}
