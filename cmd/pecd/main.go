// Command pecd makes an ordinary Postfix or Sendmail a provider of Italian
// certified mail (posta elettronica certificata).
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"strings"
	"syscall"
	_ "time/tzdata" // legal time must not depend on the host's files

	"github.com/alecthomas/kong"

	"pecd/cmd/pecd/config"
	"pecd/cmd/pecd/setup"
	"pecd/logstore"
	"pecd/plugins/conform"
	"pecd/plugins/host"
)

// version is set by the build.
var version = "devel"

// Exit codes; scripts rely on them.
const (
	exitNo     = 1  // the answer is no, or the work failed
	exitUsage  = 2  // wrong use
	exitConfig = 78 // bad configuration; EX_CONFIG of sysexits.h
)

// errNo ends a command whose answer is no and has been printed.
var errNo = errors.New("no")

type commands struct {
	Serve  serveCmd `cmd:"" help:"Run the daemon."`
	Config struct {
		Check configCheckCmd `cmd:"" help:"Check the configuration and everything that it names."`
	} `cmd:"" help:"Look at the configuration."`
	Verify verifyCmd `cmd:"" help:"Say what a message is, who signed it, and whether it holds."`
	Log    struct {
		Search  logSearchCmd  `cmd:"" help:"Search the register."`
		Show    logShowCmd    `cmd:"" help:"Tell the whole story of a message."`
		Check   logCheckCmd   `cmd:"" help:"Hold the register against what must be in it about each message."`
		Archive logArchiveCmd `cmd:"" help:"Pack a month of sealed days for a preservation system."`
		Purge   logPurgeCmd   `cmd:"" help:"Remove entries that are older than their term and archived."`
		Seal    logSealCmd    `cmd:"" help:"Seal all days that are over now, also those that were missed."`
		Export  logExportCmd  `cmd:"" help:"Write entries as the files of sealed days have them."`
		Verify  logVerifyCmd  `cmd:"" help:"Verify that nothing in the register was removed, changed or added later."`
	} `cmd:"" help:"Read the register."`
	Backup  backupCmd `cmd:"" help:"Copy the store as it is at one instant, while the daemon runs."`
	Receipt struct {
		Rebuild receiptRebuildCmd `cmd:"" help:"Render receipts that somebody lost once more, marked as duplicates."`
	} `cmd:"" help:"Receipts and notices that were issued."`
	Mailbox struct {
		Set  mailboxSetCmd  `cmd:"" help:"Set what becomes of ordinary mail for a mailbox."`
		Show mailboxShowCmd `cmd:"" help:"Show what was set."`
	} `cmd:"" help:"Settings of mailboxes."`
	Domain struct {
		Set  domainSetCmd  `cmd:"" help:"Set what becomes of ordinary mail for all mailboxes of a domain."`
		Show domainShowCmd `cmd:"" help:"Show what was set."`
	} `cmd:"" help:"Settings of domains."`
	Directory struct {
		Show   directoryShowCmd   `cmd:"" help:"Show the directory of providers that is in force."`
		Update directoryUpdateCmd `cmd:"" help:"Look for a new one now."`
		Export directoryExportCmd `cmd:"" help:"Write our own records, signed, for the authority."`
	} `cmd:"" help:"The directory of providers (indice dei gestori)."`
	Virus struct {
		List   virusListCmd   `cmd:"" help:"List the infected messages that are kept."`
		Export virusExportCmd `cmd:"" help:"Write one to a file."`
	} `cmd:"" help:"The virus store: infected originals, kept for 30 months."`
	Plugin struct {
		New   pluginNewCmd   `cmd:"" help:"Write a project for a plugin, ready to build."`
		Check pluginCheckCmd `cmd:"" help:"Try whether a program behaves as a plugin must."`
		List  pluginListCmd  `cmd:"" help:"Show the plugins that run."`
	} `cmd:"" help:"Programs of others that check messages, or take the place of a point."`
	Setup struct {
		Postfix  setupPostfixCmd  `cmd:"" help:"Show what must change in Postfix, make it, or take it back."`
		Sendmail setupSendmailCmd `cmd:"" help:"Show what must change in Sendmail, make it, or take it back."`
	} `cmd:"" help:"Set up the mail server for pecd."`
	Report     reportCmd     `cmd:"" help:"Sum up a period for the authority: messages, availability, times."`
	Quickstart quickstartCmd `cmd:"" help:"Write the first configuration of an installation."`
	Doctor     doctorCmd     `cmd:"" help:"Say what is wrong with the installation, and what mends it."`
	Version    versionCmd    `cmd:"" help:"Print the version."`
	Manual     manualCmd     `cmd:"" hidden:"" help:"Write the manual pages and the completions of shells."`
}

type versionCmd struct{}

func (versionCmd) Run(std streams) error {
	_, err := fmt.Fprintln(std.out, "pecd", version)
	return err
}

// streams are where a command writes: what was asked for to out, all else to
// err.
type streams struct{ out, err io.Writer }

// A configFlag names the configuration of the installation.
type configFlag struct {
	Config string `help:"Configuration file." default:"${config}" placeholder:"FILE"`
}

func main() {
	host.LaunchIfAsked()   // the process that becomes a plugin begins here
	conform.ChildIfAsked() // and the one that pecd plugin check kills
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], streams{os.Stdout, os.Stderr}))
}

// run parses the command line, runs the command and returns the exit code.
func run(ctx context.Context, args []string, std streams) int {
	var cli commands
	helped := false
	parser, err := kong.New(&cli, kong.Name("pecd"),
		kong.Description("Certified mail (PEC) for Postfix and Sendmail."),
		kong.Vars{"config": config.DefaultFile}, kong.Writers(std.out, std.err),
		kong.Exit(func(int) { helped = true }), // --help goes on to parse; what follows is of no interest
		kong.BindTo(ctx, (*context.Context)(nil)), kong.Bind(std))
	if err != nil {
		fmt.Fprintln(std.err, "pecd:", err)
		return exitNo
	}
	cmd, err := parser.Parse(args)
	switch {
	case helped:
		return 0
	case err != nil:
		fmt.Fprintf(std.err, "pecd: %v\n  see: %s --help\n", err, asked(err))
		return exitUsage
	}
	return exitCode(cmd.Run(), std.err)
}

// asked is the command whose arguments do not fit, as far as it was named.
func asked(err error) string {
	var pe *kong.ParseError
	if errors.As(err, &pe) && pe.Context != nil && pe.Context.Selected() != nil {
		return pe.Context.Selected().FullPath()
	}
	return "pecd"
}

// mends says what mends an error that many commands can meet; empty where nothing is
// known, or the error says so itself.
func mends(err error) string {
	switch {
	case strings.Contains(err.Error(), "  fix: "):
	case errors.Is(err, fs.ErrPermission):
		return "run this as root, or as the user that runs the daemon (pecd)"
	case errors.Is(err, setup.ErrExists):
		return "remove it if it is of no use any more, or name other directories with --dir and --store"
	case errors.Is(err, errNoDaemon):
		return "systemctl start pecd; if it does not stay: journalctl -u pecd -n 50"
	case errors.Is(err, logstore.ErrUnavailable) && errors.Is(err, fs.ErrNotExist):
		return "there is no register yet: pecd makes it at its first start; store.path of the configuration says where"
	case errors.Is(err, setup.ErrPostfix):
		return "see that Postfix is installed, and name its configuration directory with --postfix-config-dir"
	}
	return ""
}

// exitCode prints err, if there is something to say, and gives its exit code.
func exitCode(err error, to io.Writer) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errNo):
		return exitNo
	}
	fmt.Fprintln(to, "pecd:", err)
	if fix := mends(err); fix != "" {
		fmt.Fprintln(to, "  fix:", fix)
	}
	switch {
	case errors.Is(err, config.ErrConfig):
		return exitConfig
	case errors.Is(err, errUsage):
		return exitUsage
	}
	return exitNo
}

// errUsage ends a command whose arguments do not fit.
var errUsage = errors.New("wrong use")
