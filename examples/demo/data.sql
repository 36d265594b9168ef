-- Rows for make demo, after those of examples/kamailio/data.sql: three carriers on
-- addresses of their own. A call has one try there, so what a bad carrier costs is
-- seen. The registration that is dead in the tests works here.
INSERT INTO dispatcher (setid, destination, flags, priority, attrs, description) VALUES
	(4, 'sip:127.0.0.11:@GW_PORT@', 8, 0, '', 'one try for a call'),
	(4, 'sip:127.0.0.12:@GW_PORT@', 8, 0, '', 'one try for a call'),
	(4, 'sip:127.0.0.13:@GW_PORT@', 8, 0, '', 'one try for a call');
UPDATE uacreg SET auth_proxy = 'sip:127.0.0.1:@SIP_PORT@' WHERE l_uuid = 'trunk-dead';
