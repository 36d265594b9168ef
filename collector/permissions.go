package collector

import (
	"context"
	"errors"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

const (
	addressMethod = "permissions.addressDump"
	subnetMethod  = "permissions.subnetDump"
	trustedMethod = "permissions.trustedDump"
	namesMethod   = "permissions.domainDump"
)

// peerList is one of the lists of permissions (permissions/hash.c).
type peerList struct {
	desc   *Desc
	method string
	rows   kamrpc.Rows
	// group returns the group of a row; nil if the list has no groups.
	group func(above kamrpc.Above, row kamrpc.Value) string
	// field is a field that every row has.
	field string
	// none is the error message of a server that has not loaded this list.
	none string
}

// groupOfRow returns the group if the reply is a list of rows. groupAbove returns it if
// the rows follow each other in one object:
// {"table":…,"group":…,"item":{…},"table":…}.
func groupOfRow(_ kamrpc.Above, row kamrpc.Value) string   { return row.Get("group").Text() }
func groupAbove(above kamrpc.Above, _ kamrpc.Value) string { return above.Text("group") }

var (
	addressList = peerList{
		desc:   NewDesc("kamailio_permissions_addresses", "Single IP addresses in the table address, by group.", gauge, addressMethod, "group"),
		method: addressMethod, rows: kamrpc.Rows{}, field: "group", group: groupOfRow, none: "No address table",
	}
	subnetList = peerList{
		desc:   NewDesc("kamailio_permissions_subnets", "Subnets in the table address, by group.", gauge, subnetMethod, "group"),
		method: subnetMethod, rows: kamrpc.Rows{}, field: "group", group: groupOfRow, none: "No subnet table",
	}
	nameList = peerList{
		desc:   NewDesc("kamailio_permissions_domains", "Domain names in the table address, by group.", gauge, namesMethod, "group"),
		method: namesMethod, rows: kamrpc.Rows{Path: "item", Fields: []string{"domain_name"}}, field: "domain_name", group: groupAbove, none: "No domain list table",
	}
	trustedList = peerList{
		desc:   NewDesc("kamailio_permissions_trusted_peers", "Rows in the table trusted.", gauge, trustedMethod),
		method: trustedMethod, rows: kamrpc.Rows{Path: "item", Fields: []string{"ip"}}, field: "ip", none: "No trusted table",
	}
)

// count emits the number of rows of the list. It emits no sample if the list is not
// loaded, or if reading it would crash this version of Kamailio.
func (l peerList) count(ctx context.Context, s *Session, emit Emit) error {
	var rows counts
	if l.group == nil {
		rows.add(0)
	}
	err := countRows(ctx, s, l.rows, func(above kamrpc.Above, row kamrpc.Value) bool {
		if !row.Get(l.field).Exists() {
			return false
		}
		if l.group == nil {
			rows.add(1)
		} else {
			rows.add(1, l.group(above, row))
		}
		return true
	}, l.method)
	if errors.Is(err, kamrpc.ErrDangerous) || isFault(err, l.none) {
		return nil
	}
	if err != nil {
		return err
	}
	rows.emit(l.desc, emit)
	return nil
}

// permissions counts the lists of linear cost: their replies are lists.
type permissions struct{ listLimits }

func (permissions) Name() string { return "permissions" }
func (permissions) About() string {
	return "Addresses and subnets that the permissions module knows, by group"
}
func (permissions) Methods() []string { return []string{addressMethod, subnetMethod} }
func (permissions) Descs() []*Desc    { return []*Desc{addressList.desc, subnetList.desc} }

func (p permissions) Guard() Guard {
	return p.guard(addressMethod, sumOf(addressList.desc, subnetList.desc))
}

func (permissions) Update(ctx context.Context, s *Session, emit Emit) error {
	return errors.Join(addressList.count(ctx, s, emit), subnetList.count(ctx, s, emit))
}

// permissionsTrusted counts the lists of quadratic cost: their replies are a single
// object, and Kamailio walks all its rows to append the next one.
type permissionsTrusted struct{ listLimits }

func (permissionsTrusted) Name() string { return "permissions_trusted" }
func (permissionsTrusted) About() string {
	return "Trusted peers and domain names that the permissions module knows"
}
func (permissionsTrusted) Methods() []string { return []string{trustedMethod, namesMethod} }
func (permissionsTrusted) Descs() []*Desc    { return []*Desc{trustedList.desc, nameList.desc} }

func (p permissionsTrusted) Guard() Guard {
	return p.guard(namesMethod, sumOf(trustedList.desc, nameList.desc))
}

func (permissionsTrusted) Update(ctx context.Context, s *Session, emit Emit) error {
	return errors.Join(trustedList.count(ctx, s, emit), nameList.count(ctx, s, emit))
}
