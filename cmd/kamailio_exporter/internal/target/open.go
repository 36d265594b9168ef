package target

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"

	"github.com/prometheus/common/config"

	"github.com/kamailio-exporter/kamailio_exporter/kamrpc"
)

// HTTPClient makes the client for http:// and https://, which connects with dial.
func (t Target) HTTPClient(dial config.DialContextFunc, options ...config.HTTPClientOption) (*http.Client, error) {
	cfg := config.DefaultHTTPClientConfig
	if t.HTTP != nil {
		cfg = *t.HTTP
	}
	cfg.FollowRedirects = false
	options = append(options, config.WithDialContextFunc(dial), config.WithHTTP2Disabled(), config.WithIdleConnTimeout(kamrpc.HTTPIdleTimeout), config.WithSecretManager(Environment{}))
	client, err := config.NewClientFromConfig(cfg, "kamailio_exporter", options...)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", t.Name(httpFileFlag, "http_config"), err)
	}
	if transport, ok := client.Transport.(*http.Transport); ok {
		transport.MaxResponseHeaderBytes = 64 << 10
		// For 500 targets: a request is small, and config's own function would keep a log
		// of the events of each connection.
		transport.WriteBufferSize = 1 << 10
		transport.DialContext = dial
	}
	return client, nil
}

// Transports opens the transports to Kamailio. It connects to nothing yet, since Kamailio
// may be down. httpClient is for http:// and https://, dialer for the other networks.
func (t Target) Transports(httpClient *http.Client, dialer *net.Dialer) ([]kamrpc.Transport, error) {
	var transports []kamrpc.Transport
	for _, uri := range t.URIs {
		transport, err := kamrpc.OpenOver(uri, httpClient, dialer)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", t.Name("kamailio.uri", "uris"), err)
		}
		transports = append(transports, transport)
	}
	return transports, nil
}

// Client makes a client that queries Kamailio over these transports, within the target's
// limits.
func (t Target) Client(transports []kamrpc.Transport, observe func(kamrpc.Observation)) (*kamrpc.Client, error) {
	return kamrpc.NewClient(kamrpc.Config{
		Transports:    transports,
		MaxConcurrent: t.Limits.MaxConcurrentRPCs,
		MaxReplyBytes: int64(t.Limits.MaxReplySize),
		Observe:       observe,
	})
}

// Open makes a separate client for this Kamailio, without restricting its address.
func (t Target) Open(observe func(kamrpc.Observation)) (*kamrpc.Client, error) {
	dialer := &net.Dialer{}
	httpClient, err := t.HTTPClient(dialer.DialContext)
	if err != nil {
		return nil, err
	}
	transports, err := t.Transports(httpClient, dialer)
	if err != nil {
		return nil, err
	}
	return t.Client(transports, observe)
}

// Roots returns the CAs in CAFile. Without CAFile it returns nil, which means those of
// the system.
func (t Target) Roots() (*x509.CertPool, error) {
	if t.SIP.CAFile == "" {
		return nil, nil
	}
	name := t.Name("sip.tls-ca-file", "sip: tls_ca_file")
	text, err := os.ReadFile(t.SIP.CAFile)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s: %s contains no certificate in PEM format", name, t.SIP.CAFile)
	}
	return roots, nil
}

// Environment resolves the secrets that http_config names by reference (password_ref)
// from environment variables.
type Environment struct{}

// Fetch returns the value of a variable.
func (Environment) Fetch(_ context.Context, name string) (string, error) {
	return FromEnvironment(name)
}

// FromEnvironment returns the value of a variable.
func FromEnvironment(name string) (string, error) {
	value, ok := os.LookupEnv(name)
	if !ok {
		return "", fmt.Errorf("the environment variable %s is not set", name)
	}
	return value, nil
}
