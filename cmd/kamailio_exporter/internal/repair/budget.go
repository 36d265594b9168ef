package repair

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// budget limits how often something may be done: n times in a period.
type budget struct {
	n   int
	per time.Duration
}

func (b budget) String() string {
	return fmt.Sprintf("%d/%s", b.n, strings.NewReplacer("m0s", "m", "h0m0s", "h").Replace(b.per.String()))
}

// parseBudget reads "3/1h" or "3/h".
func parseBudget(text string) (budget, error) {
	bad := fmt.Errorf("%q: must be a number and a time, such as 3/1h", text)
	count, per, ok := strings.Cut(text, "/")
	if !ok || per == "" {
		return budget{}, bad
	}
	if per[0] < '0' || per[0] > '9' {
		per = "1" + per
	}
	n, err := strconv.Atoi(count)
	d, err2 := time.ParseDuration(per)
	switch {
	case err != nil || err2 != nil:
		return budget{}, bad
	case n < 1 || n > 1000:
		return budget{}, fmt.Errorf("%q: must be from 1 to 1000 times", text)
	case d < time.Second || d > ledgerLife:
		return budget{}, fmt.Errorf("%q: the time must be from 1s to %s", text, ledgerLife)
	}
	return budget{n, d}, nil
}
