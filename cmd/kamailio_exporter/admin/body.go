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
)

const (
	maxBody   = 16 << 10
	maxReason = 200
)

// request is the body of a POST.
type request struct {
	params map[string]any // string, number or bool
	reason string
}

// readBody reads the one form that a body may have.
func readBody(w http.ResponseWriter, r *http.Request) (request, error) {
	if err := onlyJSON(r); err != nil {
		return request{}, err
	}
	connOf(r).listen() // a body that does not come keeps no place
	defer connOf(r).work()
	if len(r.TransferEncoding) > 0 {
		return request{}, noLength(w, r)
	}
	if r.ContentLength > maxBody {
		return request{}, tooLarge.because(fmt.Sprintf("%d bytes at most", maxBody))
	}
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		if errors.As(err, new(*http.MaxBytesError)) {
			return request{}, tooLarge.because(fmt.Sprintf("%d bytes at most", maxBody))
		}
		return request{}, badRequest.because("the body did not arrive")
	}
	req, err := parseBody(text)
	if err != nil {
		return request{}, badRequest.because(err.Error())
	}
	return req, nil
}

// lengthTime is how long a body without a length is read.
const lengthTime = time.Second

// noLength refuses a body that does not say how long it is: what is in front of this
// program may see another end of it. One that goes on and on is too large.
func noLength(w http.ResponseWriter, r *http.Request) error {
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(lengthTime))
	_, err := io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, maxBody))
	if errors.As(err, new(*http.MaxBytesError)) || errors.Is(err, os.ErrDeadlineExceeded) {
		return tooLarge.because(fmt.Sprintf("%d bytes at most, and a Content-Length", maxBody))
	}
	return badRequest.because("a body needs a Content-Length")
}

// onlyJSON refuses other media types: what a web page can send.
func onlyJSON(r *http.Request) error {
	kind, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "application/json" || len(params) > 0 || len(r.Header.Values("Content-Type")) > 1 || r.Header.Get("Content-Encoding") != "" {
		return mediaType.because("")
	}
	return nil
}

// parseBody takes {"params":{"name":value,…},"reason":"…"}, in which a value is a
// string, a number or a bool, and nothing else: no name twice or in other letters,
// nothing deeper, nothing behind it. Parsers differ in all of these.
func parseBody(text []byte) (request, error) {
	// jsontext refuses names that repeat and what is no UTF-8.
	d := jsontext.NewDecoder(bytes.NewReader(text))
	req := request{params: map[string]any{}}
	err := members(d, func(name string) error {
		switch name {
		case "params":
			return members(d, func(name string) error {
				if len(req.params) == maxParams {
					return errors.New("too many parameters")
				}
				for known := range req.params {
					if strings.EqualFold(known, name) {
						return errors.New("two parameters whose names differ by case only")
					}
				}
				value, err := scalar(d)
				req.params[name] = value
				return err
			})
		case "reason":
			value, err := scalar(d)
			reason, ok := value.(string)
			if err == nil && (!ok || len(reason) > maxReason || strings.ContainsFunc(reason, func(r rune) bool { return !unicode.IsPrint(r) })) {
				err = fmt.Errorf("reason must be a string of %d bytes at most, without control characters", maxReason)
			}
			req.reason = reason
			return err
		}
		return errors.New("only params and reason can be here")
	})
	if err != nil {
		return request{}, plain(err)
	}
	if _, err := d.ReadToken(); !errors.Is(err, io.EOF) {
		return request{}, errors.New("something is behind the object")
	}
	return req, nil
}

const maxParams = 16

// members reads an object; each must read the value that follows the name.
func members(d *jsontext.Decoder, each func(name string) error) error {
	if d.PeekKind() != jsontext.KindBeginObject {
		if _, err := d.ReadToken(); err != nil {
			return err
		}
		return errors.New("want an object")
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
		return number(token.String()), nil
	}
	return token.Bool(), nil
}

// plain takes the parser's own words away: they quote the body.
func plain(err error) error {
	var syntax *jsontext.SyntacticError
	switch {
	case errors.Is(err, jsontext.ErrDuplicateName):
		return errors.New("a name comes twice")
	case errors.As(err, &syntax):
		return fmt.Errorf("no JSON at byte %d", syntax.ByteOffset)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("it is cut off")
	}
	return err
}
