package admin

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"
	"strings"
	"time"
	"unicode"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/action"
	"github.com/kamailio-exporter/kamailio_exporter/cmd/kamailio_exporter/internal/adminapi"
)

const (
	maxBody   = 16 << 10
	maxReason = 200
)

// readBody reads a JSON body. That may take long, and a reload may meanwhile revoke the
// sender's credentials, so it also returns the configuration in force and the identity
// after the read.
func (h *handler) readBody(w http.ResponseWriter, r *http.Request, s *inForce, most int64) ([]byte, *inForce, identity, error) {
	text, err := h.receive(w, r, s, most)
	s = h.inForce()
	who, unknown := s.auth.identify(r)
	if unknown != nil {
		return nil, nil, identity{}, unauthenticated.Because("")
	}
	return text, s, who, err
}

func (h *handler) receive(w http.ResponseWriter, r *http.Request, s *inForce, most int64) ([]byte, error) {
	if err := onlyJSON(r); err != nil {
		return nil, err
	}
	connOf(r).listen() // a connection whose body does not arrive can be closed to make room
	defer connOf(r).work()
	if len(r.TransferEncoding) > 0 {
		return nil, noLength(w, r, most)
	}
	tooMany := tooLarge.Because(fmt.Sprintf("at most %d bytes", most))
	if r.ContentLength > most {
		return nil, tooMany
	}
	defer h.untilRevoked(r, s, func() { _ = http.NewResponseController(w).SetReadDeadline(time.Now()) })()
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, most))
	switch {
	case err == nil:
		return text, nil
	case errors.As(err, new(*http.MaxBytesError)):
		return nil, tooMany
	}
	return nil, action.Malformed.Because("the body did not arrive in time")
}

// untilRevoked calls end if a reload revokes the credentials of a request's sender
// before stop is called.
func (h *handler) untilRevoked(r *http.Request, s *inForce, end func()) (stop func()) {
	stopped := make(chan struct{})
	go func() {
		for {
			select {
			case <-stopped:
				return
			case <-s.replaced:
			}
			s = h.inForce()
			if _, err := s.auth.identify(r); err != nil {
				end()
				return
			}
		}
	}()
	return func() { close(stopped) }
}

// lengthTime limits the read of a body without a length.
const lengthTime = time.Second

// noLength refuses a body without Content-Length, because a proxy in front of this
// program may see the body end elsewhere. A body that exceeds the limit is reported as
// too large.
func noLength(w http.ResponseWriter, r *http.Request, most int64) error {
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(lengthTime))
	_, err := io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, most))
	if errors.As(err, new(*http.MaxBytesError)) || errors.Is(err, os.ErrDeadlineExceeded) {
		return tooLarge.Because(fmt.Sprintf("at most %d bytes, with a Content-Length", most))
	}
	return action.Malformed.Because("a body needs a Content-Length")
}

// onlyJSON refuses other media types, which are those that a web page can send.
func onlyJSON(r *http.Request) error {
	kind, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "application/json" || len(params) > 0 || len(r.Header.Values("Content-Type")) > 1 || r.Header.Get("Content-Encoding") != "" {
		return mediaType.Because("")
	}
	return nil
}

// parseRequest parses {"params":{"name":value,…},"reason":"…"}. A value must be a
// string, a number or a bool. Duplicate names, names in different case, nested values
// and trailing data are refused, because parsers treat them differently.
func parseRequest(text []byte) (adminapi.Request, error) {
	// jsontext refuses duplicate names and invalid UTF-8.
	d := jsontext.NewDecoder(bytes.NewReader(text))
	req := adminapi.Request{Params: map[string]any{}}
	err := members(d, func(name string) error {
		switch name {
		case "params":
			return members(d, func(name string) error {
				if len(req.Params) == maxParams {
					return errors.New("too many parameters")
				}
				for known := range req.Params {
					if strings.EqualFold(known, name) {
						return errors.New("two parameters whose names differ by case only")
					}
				}
				value, err := scalar(d)
				req.Params[name] = value
				return err
			})
		case "reason":
			value, err := scalar(d)
			reason, ok := value.(string)
			if err == nil && (!ok || len(reason) > maxReason || strings.ContainsFunc(reason, func(r rune) bool { return !unicode.IsPrint(r) })) {
				err = fmt.Errorf("reason must be a string of at most %d bytes, without control characters", maxReason)
			}
			req.Reason = reason
			return err
		}
		return errors.New("unknown member: only params and reason are allowed")
	})
	if err != nil {
		return adminapi.Request{}, plain(err)
	}
	if _, err := d.ReadToken(); !errors.Is(err, io.EOF) {
		return adminapi.Request{}, errors.New("unexpected data after the object")
	}
	return req, nil
}

const maxParams = 16

// members reads an object. each must read the value after the name.
func members(d *jsontext.Decoder, each func(name string) error) error {
	if d.PeekKind() != jsontext.KindBeginObject {
		if _, err := d.ReadToken(); err != nil {
			return err
		}
		return errors.New("must be an object")
	}
	if _, err := d.ReadToken(); err != nil {
		return err
	}
	for d.PeekKind() != jsontext.KindEndObject {
		name, err := d.ReadToken()
		if err != nil {
			return err
		}
		if err := each(name.String()); err != nil {
			return err
		}
	}
	_, err := d.ReadToken()
	return err
}

func scalar(d *jsontext.Decoder) (any, error) {
	switch d.PeekKind() {
	case jsontext.KindBeginObject, jsontext.KindBeginArray, jsontext.KindNull:
		return nil, errors.New("a value must be a string, a number or a bool")
	}
	token, err := d.ReadToken()
	if err != nil {
		return nil, err
	}
	switch token.Kind() {
	case jsontext.KindString:
		return token.String(), nil
	case jsontext.KindNumber:
		return action.Number(token.String()), nil
	}
	return token.Bool(), nil
}

// plain replaces the parser's messages, because they quote the body.
func plain(err error) error {
	var syntax *jsontext.SyntacticError
	switch {
	case errors.Is(err, jsontext.ErrDuplicateName):
		return errors.New("duplicate name")
	case errors.As(err, &syntax):
		return fmt.Errorf("invalid JSON at byte %d", syntax.ByteOffset)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("it is cut off")
	}
	return err
}
