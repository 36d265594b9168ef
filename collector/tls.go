package collector

import (
	"context"
	"strings"
	"time"
)

// tlsModule is the totals of the tls module (tls/tls_rpc.c, tls_info). Kamailio 6.0 and
// later also have them as statistics (tls/tls_mod.c).
var tlsModule = Module{
	Subsystem: "tls",
	Summary:   "TLS connections in total, their limit, and bytes queued",
	Queries: []Query{
		{Method: tlsInfoMethod, Metrics: []Metric{
			{Field: "opened_connections", Name: "connections", Kind: gauge, Help: "Open TLS connections."},
			{Field: "max_connections", Name: "max_connections", Kind: gauge, Help: "Maximum number of TLS connections."},
			{Field: "clear_text_write_queued_bytes", Name: "write_queue_bytes", Kind: gauge, Wrap32: true, Help: "Bytes queued to be encrypted and sent."},
		}},
		statistics("tls",
			Metric{Field: "tls:opened_connections", Instead: "kamailio_tls_connections"},
			Metric{Field: "tls:max_connections", Instead: "kamailio_tls_max_connections"},
			Metric{Field: "tls:clear_text_write_queued_bytes", Instead: "kamailio_tls_write_queue_bytes"},
		),
	},
}

const (
	tlsInfoMethod = "tls.info"
	tlsListMethod = "tls.list"
)

// tlsConnectionsModule counts the TLS connections (tls/tls_rpc.c, tls_list). It does not
// read their addresses, which are personal data.
var tlsConnectionsModule = Module{
	Subsystem: "tls",
	Name:      "tls_connections",
	Summary:   "TLS connections by state and TLS version, up to a number of connections",
	Queries: []Query{{
		Method: tlsListMethod, Stream: true,
		Counts: []Count{
			{Name: "connections_by_state", By: []Label{{Name: "state", Field: "state", Word: tlsState}}, Help: "TLS connections by state. accept and connect are handshakes in progress; in pre_init the handshake has not started."},
			{Name: "connections_by_version", By: []Label{{Name: "version", Field: "cipher", Word: tlsVersion}}, Help: "TLS connections by the TLS version that introduced their cipher. TLSv1.3 is exact; any other is the minimum version. It is unknown until the handshake is complete."},
		},
	}},
}

// tlsConnections is that table, limited: it is read only while tls.info reports at most
// limit connections.
func tlsConnections(limit int, interval time.Duration) Collector {
	return guardedTable{tlsConnectionsModule.Collector().(*table), Guard{
		Method: tlsListMethod, Interval: interval, Limit: limit,
		Size: func(ctx context.Context, s *Session) (float64, bool, error) {
			info, err := s.Call(ctx, tlsInfoMethod)
			if err != nil {
				return 0, false, err
			}
			size, known := info.Get("opened_connections").Float()
			return size, known, nil
		},
	}}
}

// tlsState converts the states of tls_list to words.
func tlsState(state string) string {
	switch state {
	case "established":
		return state
	case "none/init":
		return "init"
	case "tls_accept":
		return "accept"
	case "tls_connect":
		return "connect"
	case "pre-init":
		return "pre_init"
	}
	return "other"
}

// tlsVersion extracts the version from OpenSSL's description of a cipher
// (SSL_CIPHER_description): "TLS_AES_256_GCM_SHA384 TLSv1.3 Kx=any …". It is the version
// that introduced the cipher: TLSv1.2 also uses ciphers from SSLv3 or TLSv1.
func tlsVersion(cipher string) string {
	fields := strings.Fields(cipher)
	if len(fields) > 1 && (strings.HasPrefix(fields[1], "TLSv") || strings.HasPrefix(fields[1], "SSLv")) {
		switch fields[1] {
		case "TLSv1.3", "TLSv1.2", "TLSv1", "TLSv1.0", "TLSv1.1", "SSLv3":
			return fields[1]
		}
		return "other"
	}
	return "unknown"
}
