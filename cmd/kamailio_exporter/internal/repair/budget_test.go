package repair

import "testing"

func TestBudgetText(t *testing.T) {
	for text, want := range map[string]string{"3/h": "3/1h", "1/30m": "1/30m", "2/90m": "2/1h30m", "5/45s": "5/45s", "1/24h": "1/24h"} {
		if b, err := parseBudget(text); err != nil || b.String() != want {
			t.Errorf("%s: %s, %v", text, b, err)
		}
	}
	for _, text := range []string{"", "3", "3/", "/1h", "x/1h", "-1/1h", "1/25h", "1/1ms", "1001/1h", "1/h/h"} {
		if b, err := parseBudget(text); err == nil {
			t.Errorf("%s: %s", text, b)
		}
	}
}
