-- kamailio-trunks.cfg for a KEMI script in Lua: the same counters in the same table.
-- docs/trunks.md has a complete example.
--
-- For Kamailio 5.4 to 6.1. Needs the modules tm, tmx, htable and pv.
--
--   1. In your script: dofile("/etc/kamailio/kamailio-trunks.lua")
--      In kamailio.cfg, define the table:
--        modparam("htable", "htable", "trunks=>size=10;initval=0;")
--   2. In your script: function trunk_name() return "..." end   names the trunk of a branch
--   3. In your branch callback:    trunks_branch()
--   4. In your reply callback:     trunks_reply()
--   5. In the dialog module's event_callback, if you use it, for the event "dialog:end":
--      trunks_call_end()

-- The bounds are also those of the exporter: do not change them.
local bounds = { 100, 250, 500, 1000, 2000, 3000, 5000, 8000, 12000, 20000 }

local function count(key)
	KSR.htable.sht_inc("trunks", key)
end

local function add(key, n)
	KSR.htable.sht_lock("trunks", key)
	n = n + (tonumber(KSR.htable.sht_get("trunks", key)) or 0)
	if n >= 2147483648 then n = n - 4294967296 end -- as in kamailio.cfg, for the exporter
	KSR.htable.sht_seti("trunks", key, n)
	KSR.htable.sht_unlock("trunks", key)
end

-- Milliseconds that fit into 31 bits: they begin again at 0 after 11 days.
local function now()
	return KSR.pv.get("$TV(sn)") % 1000000 * 1000 + math.floor(KSR.pv.get("$TV(un)") / 1000)
end

-- Names of the AVPs in which the transaction keeps what is noted for a branch.
local function of_branch(i)
	i = i or KSR.pv.get("$T_branch_idx")
	return "$avp(trunks_name" .. i .. ")", "$avp(trunks_start" .. i .. ")"
end

-- An INVITE leaves.
function trunks_branch()
	if KSR.pv.get("$rm") ~= "INVITE" or KSR.pv.get("$tt") then return end
	local trunk = trunk_name()
	if not trunk or trunk == "" then return end
	local name, start = of_branch()
	KSR.pv.sets(name, trunk)
	KSR.pv.seti("$avp(trunks_last)", KSR.pv.get("$T_branch_idx"))
	KSR.pv.seti(start, now())
	count("attempts|" .. trunk)
	KSR.tm.t_on_branch_failure("trunks_no_reply")
end

-- A branch is answered: those that are not are canceled. What they reply is not waited
-- for, because from 6.1.4 on Kamailio does not pass it to the script.
local function lost()
	for i = 0, KSR.pv.get("$avp(trunks_last)") do
		local name = of_branch(i)
		local trunk = KSR.pv.get(name)
		if trunk then
			KSR.pv.unset(name)
			count("canceled|" .. trunk)
		end
	end
end

-- The first 18x, or without one the 200, ends the post-dial delay; a final reply is the
-- outcome.
function trunks_reply()
	local code = KSR.pv.get("$rs")
	if code < 180 then return end
	local name, start = of_branch()
	local trunk, started = KSR.pv.get(name), KSR.pv.get(start)
	if not trunk then return end
	if code < 300 and started then
		KSR.pv.unset(start)
		local ms = (now() - started) % 1000000000
		if ms > 3600000 then ms = 0 end -- the clock was set back
		local le = "inf"
		for _, bound in ipairs(bounds) do
			if ms <= bound then
				le = bound
				break
			end
		end
		count("delay|" .. le .. "|" .. trunk)
		add("delay_ms|" .. trunk, ms)
	end
	if code < 200 then return end
	KSR.pv.unset(name)
	if code < 300 then
		count("answered|" .. trunk)
		lost()
		if KSR.dialog then KSR.pv.sets("$dlg_var(trunk)", trunk) end
	elseif code == 487 then
		count("canceled|" .. trunk)
	else
		count("refused|" .. code .. "|" .. trunk)
	end
end

-- A branch ends without a final reply of its trunk: tm's timer, or a caller who hangs up
-- while the trunk is silent.
function trunks_no_reply()
	local name, start = of_branch()
	local trunk = KSR.pv.get(name)
	if not trunk then return end
	KSR.pv.unset(name)
	if KSR.tm.t_is_canceled() > 0 then
		count("canceled|" .. trunk)
	elseif KSR.pv.get(start) then
		count("timeout|silent|" .. trunk)
	else
		count("timeout|ringing|" .. trunk)
	end
end

-- An answered call ends.
function trunks_call_end()
	local trunk = KSR.pv.get("$dlg_var(trunk)")
	if not trunk then return end
	count("ended|" .. trunk)
	add("seconds|" .. trunk, KSR.pv.get("$DLG_lifetime"))
end
