package cli

import (
	"runtime/debug"
	"strings"
	"time"

	"github.com/prometheus/common/version"
)

// CompleteVersion fills what the Makefile's linker flags fill from what the go
// command has put into the program: the version of the module, and the time of the
// commit. The revision is version's own to find.
func CompleteVersion(build *debug.BuildInfo) {
	if version.Version == "" {
		version.Version = strings.Trim(strings.TrimPrefix(build.Main.Version, "v"), "()") // (devel): no tag, no commit
	}
	for _, s := range build.Settings {
		if at, err := time.Parse(time.RFC3339, s.Value); s.Key == "vcs.time" && err == nil && version.BuildDate == "" {
			version.BuildDate = at.UTC().Format("20060102-15:04:05")
		}
	}
}
