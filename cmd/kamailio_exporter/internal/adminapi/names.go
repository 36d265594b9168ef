package adminapi

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"time"
)

// TokenPrefix begins every token, so that scanners for leaked secrets find it.
const TokenPrefix = "kxe_"

var crockford = base32.NewEncoding("0123456789ABCDEFGHJKMNPQRSTVWXYZ").WithPadding(base32.NoPadding)

// NewID names an operation: the time in milliseconds and 80 random bits, so that
// names sort by time and cannot be guessed.
func NewID(now time.Time) string {
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
	return token, HashToken(token)
}

// HashToken is what the configuration keeps of a token.
func HashToken(token string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(token))) }
