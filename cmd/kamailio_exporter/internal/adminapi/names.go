package adminapi

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"time"
)

// TokenPrefix is the prefix of every token, so that scanners for leaked secrets find
// it.
const TokenPrefix = "kxe_"

var crockford = base32.NewEncoding("0123456789ABCDEFGHJKMNPQRSTVWXYZ").WithPadding(base32.NoPadding)

// NewID returns an operation ID: the time in milliseconds and 80 random bits, so that
// IDs sort by time and cannot be guessed.
func NewID(now time.Time) string {
	var raw [16]byte
	binary.BigEndian.PutUint64(raw[:8], uint64(now.UnixMilli())<<16)
	rand.Read(raw[6:])
	return crockford.EncodeToString(raw[:])
}

// NewToken returns a token and its SHA-256, which is stored in the configuration.
func NewToken() (token, hash string) {
	var raw [32]byte
	rand.Read(raw[:])
	token = TokenPrefix + crockford.EncodeToString(raw[:])
	return token, HashToken(token)
}

// HashToken returns the SHA-256 of a token, as stored in the configuration.
func HashToken(token string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(token))) }
