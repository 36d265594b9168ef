package healthcheck

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); r.URL.Path == "/private" && (user != "joe" || password != "secret") {
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	defer server.Close()
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	t.Setenv("HTTP_PROXY", gone.URL)
	with := func(user string) string { return strings.Replace(server.URL, "//", "//"+user+"@", 1) }
	for _, tc := range []struct{ url, want string }{
		{server.URL + "/-/healthy", ""},
		{server.URL + "/private", "status 401"},
		{with("joe:secret") + "/private", ""},
		{with("joe:wrong") + "/private", "joe:xxxxx@"},
		{gone.URL, "connection refused"},
		{"127.0.0.1:9494", "must begin with http://"},
	} {
		err := check(t.Context(), tc.url)
		if got := fmt.Sprint(err); tc.want == "" && err != nil || !strings.Contains(got, tc.want) || strings.Contains(got, "wrong") {
			t.Errorf("%s: %v, not %q", tc.url, err, tc.want)
		}
	}
}
