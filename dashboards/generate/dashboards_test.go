package generate

import (
	"bytes"
	"flag"
	"os"
	"testing"
)

var update = flag.Bool("update", false, "write the dashboards anew")

// TestFiles checks that the committed files match the code.
func TestFiles(t *testing.T) {
	for _, d := range All() {
		want, err := d.JSON()
		if err != nil {
			t.Fatal(err)
		}
		if *update {
			if err := os.WriteFile(d.File(), want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := os.ReadFile(d.File()); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what the code says (%v): go test . -update", d.File(), err)
		}
	}
}
