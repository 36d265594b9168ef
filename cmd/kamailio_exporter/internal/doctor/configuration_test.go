package doctor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestConfigurationWithConditions checks that branches excluded by conditions are not
// read, and that files included there need not exist.
func TestConfigurationWithConditions(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"kamailio.cfg": `#!KAMAILIO
#!define WITH_A
import_file "missing.cfg"
include_file "more.cfg"
loadmodule "usrloc.so"
/* #!define WITH_COMMENT */
#!ifdef WITH_A
in A
#!ifndef WITH_B
in A without B
#!else
in A with B
#!endif
#!else
include_file "missing.cfg"
#!endif
#!ifdef WITH_C
in C
#!endif
#!ifdef MOD_usrloc
with usrloc
#!endif
#!ifdef KAMAILIO_5_6
on 5.6
#!endif
#!ifdef FROM_ARGUMENTS
from arguments
#!endif
#!ifdef WITH_COMMENT
from a comment
#!endif
#!ifdef PORT
from substdef
#!endif
#!ifexp UNKNOWN == 1
either
#!else
or
#!endif
#!undef WITH_A
#!ifdef WITH_A
again in A
#!endif
`,
		"more.cfg": "#!ifdef WITH_A\n!!define WITH_C\n#!substdef \"!PORT!5060!g\"\n#!endif\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p := &patient{version: "5.6.3"}
	text, err := readConfiguration(filepath.Join(dir, "kamailio.cfg"), append(p.predefined(), "FROM_ARGUMENTS"))
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			lines = append(lines, line)
		}
	}
	want := `loadmodule "usrloc.so"|in A|in A without B|in C|with usrloc|on 5.6|from arguments|from substdef|either|or`
	if got := strings.Join(lines, "|"); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
