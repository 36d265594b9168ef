package admin

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/binary"
	"time"
)

var crockford = base32.NewEncoding("0123456789ABCDEFGHJKMNPQRSTVWXYZ").WithPadding(base32.NoPadding)

// newID names an operation: the time in milliseconds and 80 random bits, so that
// names sort by time and cannot be guessed.
func newID(now time.Time) string {
	var raw [16]byte
	binary.BigEndian.PutUint64(raw[:8], uint64(now.UnixMilli())<<16)
	rand.Read(raw[6:])
	return crockford.EncodeToString(raw[:])
}

// NewToken makes a token, and the SHA-256 that the configuration keeps of it.
func NewToken() (token, hash string) {
	var raw [32]byte
	rand.Read(raw[:])
	token = TokenPrefix + crockford.EncodeToString(raw[:])
	return token, sha256Hex([]byte(token))
}
