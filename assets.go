// Package assets embeds the files that belong to the program: documents, dashboards,
// rules, runbooks and example configurations, as they were when it was built.
//
// It is at the top of the tree because go:embed reaches only what is below it.
package assets

import "embed"

// Files are those files, under their names in the tree. What only runs in a
// checkout (examples/demo, examples/compose) is not among them, nor is the Helm chart,
// whose files are links.
//
//go:embed README.md CHANGELOG.md SECURITY.md docs
//go:embed dashboards/screenshots/overview-incident.png dashboards/screenshots/trunks.png
//go:embed dashboards/*.json alerts/*.yml alerts/*.tmpl alerts/*.md alerts/runbooks
//go:embed examples/README.md examples/admin examples/agent examples/prometheus
//go:embed examples/kubernetes/README.md examples/kubernetes/central examples/kubernetes/sidecar
//go:embed examples/kubernetes/rules
//go:embed examples/systemd examples/kamailio/*.cfg examples/kamailio/*.lua examples/kamailio/*.py
var Files embed.FS
