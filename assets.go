// Package assets holds what goes with the program and is not in it: dashboards,
// rules, runbooks and example configurations, as they were when it was built.
//
// It is at the top of the tree since go:embed reaches only what is below it.
package assets

import "embed"

// Files are those files, under their names in the tree. What only runs in a
// checkout (examples/demo, examples/compose) is not among them.
//
//go:embed dashboards/*.json alerts/*.yml alerts/*.tmpl alerts/*.md alerts/runbooks
//go:embed examples/README.md examples/admin examples/agent examples/kubernetes examples/prometheus
//go:embed examples/systemd examples/kamailio/drouting-gw-status.cfg
var Files embed.FS
