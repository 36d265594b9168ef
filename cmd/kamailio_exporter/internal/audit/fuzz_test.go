package audit

import (
	"bytes"
	"os"
	"testing"
)

func FuzzRead(f *testing.F) {
	a := newTestAudit(f)
	for range 3 {
		if err := a.Append(Record{Kind: KindIntent, ID: "1", Params: map[string]any{"a": 1}}, Record{Kind: KindOutcome, ID: "1"}); err != nil {
			f.Fatal(err)
		}
	}
	good, err := os.ReadFile(a.path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte("{}\n{}\n"))
	f.Add([]byte(`{"seq":1`))
	f.Fuzz(func(t *testing.T, text []byte) {
		lines := 0
		result, err := readRecords(bytes.NewReader(text), "", func(Record) { lines++ })
		if err != nil {
			return
		}
		if result.good+result.torn != int64(len(text)) || lines > result.lines || result.good < 0 {
			t.Fatalf("%+v of %d bytes", result, len(text))
		}
	})
}
