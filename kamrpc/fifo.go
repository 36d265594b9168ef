package kamrpc

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

// fifo is the jsonrpcs FIFO. Requests go into one named pipe, which a single Kamailio
// process reads. Each reply comes back through a named pipe that the client creates for
// it in Kamailio's fifo_reply_dir. No size limit was found (tested up to 18 MB).
type fifo struct {
	path     string
	replyDir string
	// abandoned: the request that ended last was given up without a reply. See deliver.
	abandoned atomic.Bool
}

// replyDirDefault is the default of jsonrpcs (jsonrpcs_fifo.c).
const replyDirDefault = "/tmp"

// maxFIFORequest is the most that Linux writes to a pipe atomically: longer requests of
// two clients could mix. Kamailio reads up to 8,192 bytes.
const maxFIFORequest = 4096

func newFIFO(path, replyDir string) *fifo {
	if replyDir == "" {
		replyDir = replyDirDefault
	}
	return &fifo{path: path, replyDir: replyDir}
}

func (t *fifo) String() string { return "fifo://" + t.path }

func (t *fifo) Traits() Traits {
	return Traits{Silence: "jsonrpcs writes its replies to another directory than " + t.replyDir + " (its fifo_reply_dir must end in a slash; give the same directory here as ?reply_dir=), or may not open the FIFOs there"}
}

func (t *fifo) RoundTrip(ctx context.Context, request []byte) (_ io.ReadCloser, err error) {
	requests, err := t.openRequests()
	if err != nil {
		return nil, err
	}
	defer requests.Close()
	reply, name, err := t.makeReply(requests)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			reply.ended = func(bool) {} // nothing was sent
			reply.Close()
		}
	}()
	reply.release = bind(ctx, reply.file)
	release := bind(ctx, requests)
	defer release()
	if err := t.deliver(requests, withReplyName(request, name)); err != nil {
		return nil, err
	}
	return reply, nil
}

// openRequests opens Kamailio's FIFO in non-blocking mode: opening a FIFO without a reader
// would otherwise block forever.
func (t *fifo) openRequests() (*os.File, error) {
	f, err := os.OpenFile(t.path, os.O_WRONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, unreachable(err)
	}
	info, err := f.Stat()
	if err == nil && info.Mode().Type() != fs.ModeNamedPipe {
		err = fmt.Errorf("%w: %s is not a FIFO", ErrUnreachable, t.path)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func (t *fifo) makeReply(requests *os.File) (*fifoReply, string, error) {
	var random [8]byte
	rand.Read(random[:])
	// Kamailio rejects a name with a dot or a slash.
	name := "kamailio_exporter_" + hex.EncodeToString(random[:])
	path := filepath.Join(t.replyDir, name)
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		return nil, "", fmt.Errorf("%w: cannot create a reply FIFO in %s (fifo_reply_dir of jsonrpcs): %w", ErrUnreachable, t.replyDir, err)
	}
	r := &fifoReply{path: path, ended: func(answered bool) { t.abandoned.Store(!answered) }, release: func() bool { return true }}
	err := letGroupWrite(path, requests)
	if err == nil {
		r.file, err = os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	}
	if err == nil {
		r.keeper, err = os.OpenFile(path, os.O_WRONLY|syscall.O_NONBLOCK, 0)
	}
	if err != nil {
		r.Close()
		return nil, "", fmt.Errorf("%w: reply FIFO: %w", ErrUnreachable, err)
	}
	return r, name, nil
}

// letGroupWrite lets Kamailio write the reply: it grants access to the group of Kamailio's
// FIFO if this process is a member of it, else to all users. Group root does not help: a
// Kamailio that root started and that runs as another user is not in it. Write access for
// all is safe because a reply must have the request's id, which only Kamailio knows.
func letGroupWrite(path string, requests *os.File) error {
	info, err := requests.Stat()
	if err != nil {
		return err
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); ok && owner.Gid != 0 && os.Chown(path, -1, int(owner.Gid)) == nil {
		return os.Chmod(path, 0o620)
	}
	return os.Chmod(path, 0o622)
}

// deliver writes the request, unless an unread request precedes it and the previous call
// was given up. Kamailio may hang; once it recovers, it would process all waiting requests
// and log an error for each reply that has no reader. Unread requests of other calls that
// still wait for their replies are no obstacle.
func (t *fifo) deliver(requests *os.File, request []byte) error {
	if len(request) > maxFIFORequest {
		return fmt.Errorf("the request has %d bytes; the FIFO carries at most %d", len(request), maxFIFORequest)
	}
	if t.abandoned.Load() && unread(requests) > 0 {
		return fmt.Errorf("%w: an earlier request is still in the FIFO", ErrUnreachable)
	}
	if _, err := requests.Write(request); err != nil {
		return unreachable(err)
	}
	return nil
}

// unread returns how many bytes wait in a pipe; 0 if the system does not report it.
func unread(f *os.File) int {
	conn, err := f.SyscallConn()
	if err != nil {
		return 0
	}
	var n int32
	_ = conn.Control(func(fd uintptr) {
		_, _, _ = syscall.Syscall(syscall.SYS_IOCTL, fd, syscall.TIOCINQ, uintptr(unsafe.Pointer(&n))) //nolint:gosec // TIOCINQ is FIONREAD
	})
	return int(n)
}

// withReplyName adds the member that tells Kamailio where to reply. encode wrote the
// request as an object, so it ends with a brace.
//
// A backslash is sent as \u005c: jsonrpc_read_stream treats any quote after a backslash as
// escaped. For it, a string that ends with `\\` would never end, and would swallow the
// requests of all other clients.
func withReplyName(request []byte, name string) []byte {
	out := bytes.ReplaceAll(request[:len(request)-1], []byte(`\\`), []byte(`\u005c`))
	return append(out, `,"reply_name":"`+name+`"}`...)
}

// fifoReply reads a reply FIFO. keeper is our own write end: a FIFO without a writer reads
// as EOF until Kamailio has opened it. keeper is closed on the first bytes, so that EOF
// arrives when Kamailio closes its end.
type fifoReply struct {
	file    *os.File // not embedded: io.Copy would call its WriteTo instead of Read
	keeper  *os.File
	path    string
	ended   func(answered bool)
	release func() bool
}

func (r *fifoReply) Read(p []byte) (int, error) {
	n, err := r.file.Read(p)
	if n > 0 && r.keeper != nil {
		r.keeper.Close()
		r.keeper = nil
		r.ended(true)
	}
	return n, err
}

// Close removes the FIFO first. If Kamailio has not opened it yet, it then fails at once.
// Otherwise it would try five times, while its only FIFO process sleeps
// (jsonrpcs_fifo.c).
func (r *fifoReply) Close() error {
	err := os.Remove(r.path)
	r.release()
	if r.keeper != nil {
		r.ended(false)
		err = errors.Join(err, r.keeper.Close())
	} else if r.file != nil { // as in drained.Close
		_ = r.file.SetReadDeadline(time.Now().Add(drainTime))
		_, _ = io.CopyN(io.Discard, r.file, drainBytes)
	}
	if r.file != nil {
		err = errors.Join(err, r.file.Close())
	}
	return err
}
