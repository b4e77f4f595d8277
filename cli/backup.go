package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/podvine/podvine/agent"
	"github.com/podvine/podvine/agent/backup"
	"github.com/podvine/podvine/consensus"
)

// progressInterval is how often a terminal is told how far a backup is.
const progressInterval = 500 * time.Millisecond

func newBackupCommand(streams Streams) *cobra.Command {
	return &cobra.Command{
		Use:   "backup [FILE]",
		Short: "Save all records of the cluster in a file (without FILE, or with -, on the standard output)",
		Long: `Saves all records of the cluster, as they are at one moment, in a file that root or its maker alone can read. Any member will do, and
nothing waits meanwhile. The file is checked while it is written, and appears whole or not at all.

Secrets are in it as the cluster keeps them: sealed. Whoever must restore it into another cluster needs the files data-keys.json and
pki of a replica's data folder as well; keep them apart from the backup.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			if len(args) == 0 || args[0] == "-" {
				return saveBackup(command.Context(), streams, streams.Out, "")
			}
			return saveBackupFile(command.Context(), streams, args[0])
		},
	}
}

// saveBackupFile makes the file appear whole.
func saveBackupFile(ctx context.Context, streams Streams, path string) error {
	// A name that nobody can have taken before, with a link to elsewhere.
	file, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.new")
	if err != nil {
		return fmt.Errorf("back up: %w", err)
	}
	err = saveBackup(ctx, streams, file, path)
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return errors.Join(err, os.Remove(file.Name()))
	}
	if err := os.Rename(file.Name(), path); err != nil {
		return fmt.Errorf("back up: %w", errors.Join(err, os.Remove(file.Name())))
	}
	return nil
}

// saveBackup writes a backup and checks what it writes.
func saveBackup(ctx context.Context, streams Streams, to io.Writer, name string) error {
	client, config, err := newClient()
	if err != nil {
		return err
	}
	body, err := client.CoreV1().RESTClient().Get().AbsPath(agent.BackupPath).Stream(ctx)
	if err != nil {
		return fmt.Errorf("back up through %s: %w", config.Host, err)
	}
	defer body.Close()
	shown := showProgress(streams.Err, "received")
	header, info, err := checkBackup(io.TeeReader(body, io.MultiWriter(to, shown)))
	shown.end()
	if err != nil {
		return fmt.Errorf("back up through %s: %w", config.Host, err)
	}
	if name == "" {
		name = "the standard output"
	}
	fmt.Fprintf(streams.Err, "%s: %s in %s\n", name, describeBackup(header, info), sizeText(shown.bytes))
	return nil
}

// checkBackup reads a backup to its end.
func checkBackup(r io.Reader) (backup.Header, consensus.BackupInfo, error) {
	header, snapshot, err := backup.Read(r)
	if err != nil {
		return header, consensus.BackupInfo{}, err
	}
	info, err := consensus.CheckBackup(snapshot)
	return header, info, err
}

func describeBackup(header backup.Header, info consensus.BackupInfo) string {
	objects := 0
	for _, count := range info.Keys {
		objects += count
	}
	return fmt.Sprintf("%d objects at revision %d, saved from cluster %s by %s on %s", objects, info.Revision, header.Cluster, header.Node,
		header.Time.Format("2006-01-02 15:04:05 MST"))
}

func sizeText(bytes int64) string { return fmt.Sprintf("%.1f MB", float64(bytes)/1e6) }

// progress counts bytes, and shows the count where it goes to a terminal.
type progress struct {
	what  string
	out   *os.File
	bytes int64
	next  time.Time
}

func showProgress(out io.Writer, what string) *progress {
	p := &progress{what: what, next: time.Now().Add(progressInterval)}
	if file, ok := out.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		p.out = file
	}
	return p
}

// Write implements io.Writer.
func (p *progress) Write(b []byte) (int, error) {
	p.bytes += int64(len(b))
	if p.out != nil && time.Now().After(p.next) {
		p.next = time.Now().Add(progressInterval)
		fmt.Fprintf(p.out, "\r%s %s ", p.what, sizeText(p.bytes))
	}
	return len(b), nil
}

// end leaves the line to what comes next.
func (p *progress) end() {
	if p.out != nil {
		fmt.Fprint(p.out, "\r\033[K")
	}
}

func newRestoreCommand(streams Streams) *cobra.Command {
	var confirmed, otherCluster bool
	command := &cobra.Command{
		Use:   "restore FILE",
		Short: "Replace all records of the cluster by those of a backup",
		Long: `Replaces all records of the cluster by those of a backup; what was written since then is lost. The file is checked whole, here and
by the leader, before anything changes. The cluster's revision leaps, so that every client lists anew; then pods
follow the restored records: those that the backup does not know end, those that are gone start again.

The backup of another cluster is taken with --other-cluster, by a cluster that was founded with the keys of the old one.`,
		Args: cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			file, err := os.Open(args[0])
			if err != nil {
				return fmt.Errorf("restore: %w", err)
			}
			defer file.Close()
			return restoreBackup(command.Context(), streams, file, confirmed, otherCluster)
		},
	}
	command.Flags().BoolVar(&confirmed, "yes", false, "do it without asking")
	command.Flags().BoolVar(&otherCluster, "other-cluster", false, "take the backup of another cluster, whose place this one takes")
	return command
}

func restoreBackup(ctx context.Context, streams Streams, file *os.File, confirmed, otherCluster bool) error {
	header, info, err := checkBackup(file)
	if err != nil {
		return fmt.Errorf("restore %s: %w", file.Name(), err)
	}
	status, _, err := fetchStatus(ctx)
	if err != nil {
		return err
	}
	if header.Cluster != status.Cluster && !otherCluster {
		return fmt.Errorf("restore %s: the backup is of cluster %s, this is %s: if this one is to take its place, say --other-cluster", file.Name(), header.Cluster, status.Cluster)
	}
	fmt.Fprintf(streams.Err, "%s: %s\nAll records of cluster %s are replaced by these. What was written since then is lost.\n", file.Name(), describeBackup(header, info), status.Cluster)
	if !confirmed {
		if err := confirm(streams, "Restore?"); err != nil {
			return err
		}
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("restore %s: %w", file.Name(), err)
	}
	client, config, err := newClient()
	if err != nil {
		return err
	}
	shown := showProgress(streams.Err, "sent")
	request := client.CoreV1().RESTClient().Post().AbsPath(agent.RestorePath).SetHeader("Content-Type", "application/octet-stream")
	if otherCluster {
		request = request.Param(agent.AnyClusterParameter, "true")
	}
	result := request.Body(io.TeeReader(file, shown)).Do(ctx)
	shown.end()
	if err := result.Error(); err != nil { // it reads the server's answer, which Raw would not
		return fmt.Errorf("restore through %s: %w", config.Host, err)
	}
	content, err := result.Raw()
	if err == nil {
		err = json.Unmarshal(content, &info)
	}
	if err != nil {
		return fmt.Errorf("restore through %s: read the answer: %w", config.Host, err)
	}
	fmt.Fprintf(streams.Out, "restored; the revision is %d now\n", info.Revision)
	return nil
}

// confirm asks a person; who is none must say --yes.
func confirm(streams Streams, question string) error {
	in, ok := streams.In.(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return errors.New("nobody is there to ask: say --yes to do it")
	}
	fmt.Fprintf(streams.Err, "%s [y/N] ", question)
	answer, err := bufio.NewReader(in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read the answer: %w", err)
	}
	if answer = strings.ToLower(strings.TrimSpace(answer)); answer != "y" && answer != "yes" {
		return errors.New("nothing was done")
	}
	return nil
}
