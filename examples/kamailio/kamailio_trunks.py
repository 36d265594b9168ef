"""kamailio-trunks.cfg for a KEMI script in Python: the same counters in the same table.
docs/trunks.md has a complete example.

For Kamailio 5.4 to 6.1. Needs the modules tm, tmx, htable and pv.

  1. Copy this file beside your script, import it there, and make your class one of its
     own: class kamailio(kamailio_trunks.Trunks). In kamailio.cfg, define the table:
       modparam("htable", "htable", "trunks=>size=10;initval=0;")
  2. In your class: def trunk_name(self): return "..."   names the trunk of a branch
  3. In your branch callback:    self.trunks_branch()
  4. In your reply callback:     self.trunks_reply()
  5. In the dialog module's event_callback, if you use it, for the event "dialog:end":
     self.trunks_call_end()
"""

import time

import KSR

# The bounds are also those of the exporter: do not change them.
BOUNDS = (100, 250, 500, 1000, 2000, 3000, 5000, 8000, 12000, 20000)


def _count(key):
    KSR.htable.sht_inc("trunks", key)


def _add(key, n):
    KSR.htable.sht_lock("trunks", key)
    try:
        n += int(KSR.htable.sht_get("trunks", key) or 0)
        # 32 bits, as in kamailio.cfg: KSR takes no more, and the exporter expects them.
        n = (n + 0x80000000) % 0x100000000 - 0x80000000
        KSR.htable.sht_seti("trunks", key, n)
    finally:
        KSR.htable.sht_unlock("trunks", key)


def _now():
    """Milliseconds that fit into 31 bits: they begin again at 0 after 11 days."""
    return int(time.time() * 1000) % 1000000000


def _of_branch(i=None):
    """Names of the AVPs in which the transaction keeps what is noted for a branch."""
    if i is None:
        i = KSR.pv.get("$T_branch_idx")
    return f"$avp(trunks_name{i})", f"$avp(trunks_start{i})"


def _lost():
    """A branch is answered: those that are not are canceled. What they reply is not
    waited for, because from 6.1.4 on Kamailio does not pass it to the script."""
    for i in range(KSR.pv.get("$avp(trunks_last)") + 1):
        name, _ = _of_branch(i)
        trunk = KSR.pv.get(name)
        if trunk is not None:
            KSR.pv.unset(name)
            _count(f"canceled|{trunk}")


class Trunks:
    def trunks_branch(self):
        """An INVITE leaves."""
        if KSR.pv.get("$rm") != "INVITE" or KSR.pv.get("$tt") is not None:
            return
        trunk = str(self.trunk_name() or "")
        if not trunk:
            return
        name, start = _of_branch()
        KSR.pv.sets(name, trunk)
        KSR.pv.seti("$avp(trunks_last)", KSR.pv.get("$T_branch_idx"))
        KSR.pv.seti(start, _now())
        _count(f"attempts|{trunk}")
        KSR.tm.t_on_branch_failure("trunks_no_reply")

    def trunks_reply(self):
        """The first 18x, or without one the 200, ends the post-dial delay; a final reply
        is the outcome."""
        code = KSR.pv.get("$rs")
        if code < 180:
            return
        name, start = _of_branch()
        trunk, started = KSR.pv.get(name), KSR.pv.get(start)
        if trunk is None:
            return
        if code < 300 and started is not None:
            KSR.pv.unset(start)
            ms = (_now() - started) % 1000000000
            if ms > 3600000:  # the clock was set back
                ms = 0
            le = next((bound for bound in BOUNDS if ms <= bound), "inf")
            _count(f"delay|{le}|{trunk}")
            _add(f"delay_ms|{trunk}", ms)
        if code < 200:
            return
        KSR.pv.unset(name)
        if code < 300:
            _count(f"answered|{trunk}")
            _lost()
            if hasattr(KSR, "dialog"):
                KSR.pv.sets("$dlg_var(trunk)", trunk)
        elif code == 487:
            _count(f"canceled|{trunk}")
        else:
            _count(f"refused|{code}|{trunk}")

    def trunks_no_reply(self, msg):
        """A branch ends without a final reply of its trunk: tm's timer, or a caller who
        hangs up while the trunk is silent."""
        name, start = _of_branch()
        trunk = KSR.pv.get(name)
        if trunk is not None:
            KSR.pv.unset(name)
            if KSR.tm.t_is_canceled() > 0:
                _count(f"canceled|{trunk}")
            elif KSR.pv.get(start) is not None:
                _count(f"timeout|silent|{trunk}")
            else:
                _count(f"timeout|ringing|{trunk}")
        return 1

    def trunks_call_end(self):
        """An answered call ends."""
        trunk = KSR.pv.get("$dlg_var(trunk)")
        if trunk is not None:
            _count(f"ended|{trunk}")
            _add(f"seconds|{trunk}", KSR.pv.get("$DLG_lifetime"))
