package cli

import (
	"runtime/debug"
	"strings"
	"time"

	"github.com/prometheus/common/version"
)

// CompleteVersion fills in what the Makefile's linker flags would set, from the build
// information of the go command: the version of the module and the time of the commit.
// The package version finds the revision itself.
func CompleteVersion(build *debug.BuildInfo) {
	if version.Version == "" {
		version.Version = strings.Trim(strings.TrimPrefix(build.Main.Version, "v"), "()") // (devel): neither tag nor commit
	}
	for _, s := range build.Settings {
		if at, err := time.Parse(time.RFC3339, s.Value); s.Key == "vcs.time" && err == nil && version.BuildDate == "" {
			version.BuildDate = at.UTC().Format("20060102-15:04:05")
		}
	}
}
