package repair

import "github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/action"

// rail is a guard rail and its name in metrics.
type rail struct {
	name  string
	again bool // Alertmanager should send the alert again
	storm bool // several alerts refused by it within stormTime open the breaker
}

// The guard rails.
var (
	railStale        = rail{name: "stale"}
	railParameter    = rail{name: "parameter"}
	railDuplicate    = rail{name: "duplicate"}
	railBreaker      = rail{name: "breaker"}
	railGroup        = rail{name: "group", storm: true}
	railPerson       = rail{name: "person"}
	railScrape       = rail{name: "scrape", again: true}
	railBudget       = rail{name: "budget", storm: true}
	railTargetBudget = rail{name: "target_budget"}
	railAttempts     = rail{name: "attempts", again: true}
	railUnconfirmed  = rail{name: "unconfirmed"}
	railGuard        = rail{name: "guard", storm: true}
	railTarget       = rail{name: "target"}
	railUptime       = rail{name: "uptime", again: true}
	railBusy         = rail{name: "busy", again: true}
	railUnreachable  = rail{name: "unreachable", again: true}
	railAudit        = rail{name: "audit", again: true}
	railNotOwn       = rail{name: "not_own"}
	railOther        = rail{name: "other"}
)

func rails() []rail {
	return []rail{
		railStale, railParameter, railDuplicate, railBreaker, railGroup, railPerson, railScrape, railBudget, railTargetBudget, railAttempts, railUnconfirmed,
		railGuard, railTarget, railUptime, railBusy, railUnreachable, railAudit, railNotOwn, railOther,
	}
}

// railOf returns the guard rail for a problem of the engine.
func railOf(p *action.Problem) rail {
	byKind := map[action.Kind]rail{
		action.Unconfirmed: railUnconfirmed, action.Guarded: railGuard, action.BadParameter: railParameter, action.NoSuchTarget: railTarget,
		action.Restarted: railUptime, action.Busy: railBusy, action.Stopping: railBusy, action.Unreachable: railUnreachable, action.NoAudit: railAudit,
		notOwn: railNotOwn, tooMany: railAttempts,
	}
	if r, ok := byKind[p.Kind]; ok {
		return r
	}
	return railOther
}
