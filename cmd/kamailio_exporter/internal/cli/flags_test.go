package cli

import "testing"

func TestSameAddress(t *testing.T) {
	for _, tc := range []struct {
		a, b string
		same bool
	}{
		{":9494", "127.0.0.1:9494", true}, {"127.0.0.1:9494", "127.0.0.1:9494", true}, {"0.0.0.0:9494", "127.0.0.1:9494", true},
		{"[::]:9494", "127.0.0.1:9494", true}, {"localhost:9494", "127.0.0.1:9494", true}, {":9494", "127.0.0.1:9495", false},
		{"192.0.2.1:9494", "127.0.0.1:9494", false}, {":9494", "unix:/run/x", false}, {"127.0.0.1:0", "127.0.0.1:0", false},
	} {
		if got := sameAddress(tc.a, tc.b); got != tc.same {
			t.Errorf("%s, %s: %t", tc.a, tc.b, got)
		}
	}
}
