-- Rows for the demo's tables. @GW_PORT@ is where the demo's gateways begin:
-- +0 answers, +1 is busy, +2 answers 503, +3 rings for ever, +4 answers on
-- [::1]. At @DEAD_PORT@ nothing answers. start-kamailio.sh fills both in.
-- Addresses outside of 127.0.0.0/8 are from the ranges for documentation and
-- nothing is sent to them.

INSERT INTO domain (domain, did) VALUES
	('example.com', 'example.com'),
	('example.net', 'net'),
	('sip.example.net', 'net');
INSERT INTO domain_attrs (did, name, type, value) VALUES
	('net', 'max_calls', 0, '10'),
	('net', 'tier', 2, 'gold');

-- flags: 1 inactive, 4 disabled, 8 to be pinged.
INSERT INTO dispatcher (setid, destination, flags, priority, attrs, description) VALUES
	(0, 'sip:127.0.0.1:@GW_PORT@', 8, 0, '', 'set zero'),
	(1, 'sip:127.0.0.1:@GW_PORT@', 8, 10, 'duid=gw1;weight=50;rweight=50;maxload=100', 'answers'),
	(1, 'sip:127.0.0.1:@GW_PORT@;transport=udp', 8, 5, 'duid=gw1u;weight=30;rweight=30;maxload=50', 'answers'),
	(1, 'sip:127.0.0.1:@GW_PORT@', 8, 0, 'duid=gw1b;weight=20;rweight=20', 'the same URI again'),
	(2, 'sip:127.0.0.1:@GW_PORT@', 8, 10, 'duid=gw1c', 'the same URI in another set'),
	(2, 'sip:127.0.0.1:@DEAD_PORT@', 8, -5, 'duid=dead', 'nothing answers'),
	(2, 'sip:127.0.0.1:@GW_PORT+2@', 4, 0, 'duid=off', 'disabled'),
	(3, 'sip:[::1]:@GW_PORT+4@', 8, 0, 'duid=gw6;weight=100', 'IPv6'),
	(3, 'sip:127.0.0.1:@GW_PORT@', 0, 0, 'duid=noping', 'active, never pinged');

INSERT INTO dr_gateways (gwid, type, address, strip, pri_prefix, attrs, description) VALUES
	(1, 1, '127.0.0.1:@GW_PORT@', 0, NULL, 'tier=1', 'Answers'),
	(2, 1, '127.0.0.1:@GW_PORT+1@', 0, NULL, 'tier=1', 'Busy'),
	(3, 2, '127.0.0.1:@GW_PORT+2@', 0, NULL, 'tier=2', 'Rejects with "503"'),
	(4, 2, '127.0.0.1:@DEAD_PORT@', 0, '3', 'tier=2;path=a\b', 'Dead \ silent'),
	(5, 3, '127.0.0.1:@GW_PORT+3@', 0, NULL, NULL, 'Rings, Zürich');
INSERT INTO dr_gw_lists (id, gwlist, description) VALUES
	(1, '3,4,1', 'two that fail, one that answers'),
	(2, '3,4', 'all fail'),
	(3, '1', 'one that answers');
INSERT INTO dr_rules (groupid, prefix, timerec, priority, routeid, gwlist, description) VALUES
	('1', '2', '', 0, '0', '2', 'busy'),
	('1', '3', '', 0, '0', '#1', 'fail over'),
	('1', '4', '', 0, '0', '5', 'rings'),
	('1,2', '49', '', 0, '0', '#3', 'Germany');

INSERT INTO address (grp, ip_addr, mask, port, tag) VALUES
	(1, '127.0.0.1', 32, 0, 'local'),
	(1, '192.0.2.10', 32, 5060, 'carrier-a'),
	(1, '192.0.2.10', 32, 5070, 'carrier-a'),
	(2, '198.51.100.0', 24, 0, 'office'),
	(2, '2001:db8::', 32, 0, 'office-v6'),
	(3, '203.0.113.5', 32, 0, NULL),
	(4, 'peer-a.example.com', 32, 5060, 'named'),
	(4, 'peer-b.example.com', 32, 0, 'named'),
	(5, 'peer-c.example.net', 32, 0, NULL);
INSERT INTO trusted (src_ip, proto, from_pattern, ruri_pattern, tag, priority) VALUES
	('192.0.2.20', 'any', '^sip:.*@example.com$', NULL, 'pbx', 10),
	('192.0.2.20', 'udp', NULL, '^sip:00', 'pbx', 5),
	('192.0.2.21', 'tls', NULL, NULL, NULL, 0);

INSERT INTO pdt (sdomain, prefix, domain) VALUES
	('*', '49', 'de.example.com'),
	('*', '43', 'at.example.com'),
	('example.net', '1', 'us.example.net');
INSERT INTO mtree (tprefix, tvalue) VALUES
	('49', 'Germany'), ('4930', 'Berlin'), ('43', 'Austria'), ('1', 'North America');
CREATE TABLE mtree_none AS SELECT * FROM mtree WHERE 0;
INSERT INTO version (table_name, table_version) VALUES ('mtree_none', 1);
INSERT INTO dialplan (dpid, pr, match_op, match_exp, match_len, subst_exp, repl_exp, attrs) VALUES
	(1, 1, 1, '^00([0-9]+)$', 0, '^00([0-9]+)$', '+\1', 'international'),
	(1, 2, 0, '110', 3, '', '', 'emergency'),
	(2, 1, 1, '^[0-9]{3}$', 3, '', '', 'internal');

INSERT INTO carrier_name (id, carrier) VALUES (1, 'default'), (2, 'premium');
INSERT INTO domain_name (id, domain) VALUES (1, 'proxy'), (2, 'fallback');
INSERT INTO carrierroute (carrier, domain, scan_prefix, flags, mask, prob, strip, rewrite_host, rewrite_prefix, rewrite_suffix, description) VALUES
	(1, 1, '49', 0, 0, 0.5, 0, '127.0.0.1:@GW_PORT@', '', '', 'half'),
	(1, 1, '49', 0, 0, 0.5, 0, '127.0.0.1:@GW_PORT+1@', '', '', 'half'),
	(1, 1, '', 0, 0, 1.0, 0, '127.0.0.1:@GW_PORT@', '', '', 'all else'),
	(2, 1, '49', 0, 0, 1.0, 0, '127.0.0.1:@GW_PORT@', '', '', 'premium');
INSERT INTO carrierfailureroute (carrier, domain, scan_prefix, host_name, reply_code, flags, mask, next_domain, description) VALUES
	(1, 1, '49', '127.0.0.1:@GW_PORT@', '5..', 0, 0, 2, 'fall back');

INSERT INTO lcr_gw (lcr_id, gw_name, ip_addr, hostname, port, uri_scheme, transport, strip, prefix, tag, flags, defunct) VALUES
	(1, 'lcr-a', '127.0.0.1', NULL, @GW_PORT@, 1, 1, 0, NULL, 'a', 0, 0),
	(1, 'lcr-b', '127.0.0.1', NULL, @GW_PORT+1@, 1, 2, 2, '00', 'b', 0, 0),
	(2, 'lcr-c', NULL, 'gw.example.com', 5061, 2, 3, 0, NULL, 'c', 0, 0);
INSERT INTO lcr_rule (id, lcr_id, prefix, from_uri, stopper, enabled) VALUES
	(1, 1, '49', NULL, 0, 1), (2, 1, '1', '^sip:vip', 1, 1), (3, 2, '', NULL, 0, 1);
INSERT INTO lcr_rule_target (lcr_id, rule_id, gw_id, priority, weight) VALUES
	(1, 1, 1, 1, 100), (1, 1, 2, 2, 50), (1, 2, 2, 1, 1), (2, 3, 3, 1, 1);

-- action: 0 blacklist, 1 whitelist, 2 destination;
-- type: 0 user agent, 1 country, 2 domain, 3 IP address, 4 user
INSERT INTO secfilter (action, type, data) VALUES
	(0, 0, 'friendly-scanner'), (0, 0, 'sipvicious'), (0, 1, 'zz'), (0, 2, 'spam.example.org'),
	(0, 3, '192.0.2.66'), (0, 4, 'admin'), (1, 3, '127.0.0.1'), (1, 2, 'example.com'),
	(2, 4, '0900');

INSERT INTO uacreg (l_uuid, l_username, l_domain, r_username, r_domain, realm, auth_username, auth_password, auth_ha1, auth_proxy, expires, flags, reg_delay) VALUES
	('trunk-a', 'trunka', 'example.com', 'trunka', 'example.com', 'example.com', 'trunka', 'secret', '', 'sip:127.0.0.1:@SIP_PORT@', 300, 0, 0),
	('trunk-b', 'trunkb', 'example.net', 'trunkb', 'example.net', 'example.net', 'trunkb', 'secret', '', 'sip:127.0.0.1:@SIP_PORT@', 600, 0, 0),
	('trunk-dead', 'trunkd', 'example.com', 'trunkd', 'example.com', 'example.com', 'trunkd', 'secret', '', 'sip:127.0.0.1:@DEAD_PORT@', 300, 0, 0),
	('trunk-off', 'trunko', 'example.com', 'trunko', 'example.com', 'example.com', 'trunko', 'secret', '', 'sip:127.0.0.1:@SIP_PORT@', 300, 1, 0);

INSERT INTO htable (key_name, key_type, value_type, key_value) VALUES
	('greeting', 0, 0, 'hello "world"'), ('max_calls', 0, 1, '42'), ('region', 0, 0, 'Zürich');

INSERT INTO pl_pipes (pipeid, algorithm, plimit) VALUES
	('register', 'TAILDROP', 2000), ('invite', 'TAILDROP', 1000), ('spare', 'RED', 10);
