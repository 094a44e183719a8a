package doctor

// An Entry is what is always true of a finding. Fix may name this installation:
// {config}, {postfix}, {sendmail}, {store}, {access}, {mailboxes}.
type Entry struct {
	Severity Severity
	Title    string
	Why      string
	Fix      string
}

const (
	setupFix  = "pecd setup postfix --config {config} --postfix-config-dir {postfix} --apply && postfix -c {postfix} reload"
	alone     = "    # while pecd does not run, as its user: runuser -u pecd -- pecd directory update"
	fetchFix  = "see why what should fetch the file daily does not (it must set its time also where nothing is new: touch), or have pecd fetch it: directory.url in {config}"
	uncertify = "Users send in the belief that their mail is certified, and it is not."
	breaks    = "A signed message that is changed on its way has a broken signature, and the other provider treats it as an anomaly."
	within    = "It goes from pecd straight to the mailbox store; only what comes in from others passes this."
	// dropIn lets the unit write elsewhere than below /var/lib/pecd: it has ProtectSystem=strict.
	dropIn     = "outside of /var/lib/pecd the unit may not write without ReadWritePaths= and the directory, which must exist, below [Service]: systemctl edit pecd"
	permission = "The MTA answers every client 451 until it can connect."
)

// catalogue has all findings by their ID. docs/troubleshooting.md is made of it.
var catalogue = map[string]Entry{
	// The configuration, keys, and what others publish.
	"config": {Error, "The configuration cannot be used", "pecd does not start with it, and a reload keeps the old one.", "pecd config check --config {config}"},
	"load":   {Error, "Something that the configuration names cannot be used", "pecd does not start with it, and a reload keeps the old one.", "pecd config check --config {config}"},
	"key":    {Error, "Key or certificate cannot be used", "Without a key that matches its certificate nothing can be signed, and pecd does not start.", "pecd config check --config {config}"},
	"hsm": {Error, "The hardware module cannot be reached", "Without it nothing is signed: what needs a signature waits at the MTA.",
		"pkcs11-tool --module MODULE --list-slots (signer.module in {config})"},
	"private-owner":        {Error, "A file that only pecd may read belongs to another user", "Root can read it and the daemon cannot: it does not start, or cannot do what it needs the file for.", "chown pecd: FILE; chmod 600 FILE"},
	"certificate-ends":     {Error, "A certificate has ended or ends soon", "Receivers refuse what is signed after its end, and pecd does not start.", "have it renewed; set signer.next in {config}"},
	"certificate-profile":  {Warning, "A certificate is not as RFC 6109, 5.5 wants it", "Some providers refuse signatures by such certificates.", "have it issued anew"},
	"trust":                {Error, "What pecd relies on cannot be read", "Without the CAs of the providers no message can be verified, and pecd does not start.", "pecd config check --config {config}"},
	"not-in-directory":     {Error, "We are not in the directory of providers as the configuration has it", "Other providers believe only signatures by certificates in the directory.", "pecd directory show --config {config}"},
	"directory-unreadable": {Error, "There is no directory of providers", "Without it nobody can tell certified mail from ordinary mail, and pecd does not start.", "pecd directory update --config {config}" + alone},
	"directory-old":        {Warning, "The directory of providers is old", "New providers and domains are taken for ordinary mail (RFC 6109, 4.5: it is fetched daily).", "pecd directory update --config {config}" + alone},
	"directory-dead":       {Error, "The directory of providers is older than a week", "Certificates that were withdrawn are believed, and new providers are not.", "pecd directory update --config {config}" + alone},
	"directory-file-old":   {Warning, "The file with the directory of providers is old", "New providers and domains are taken for ordinary mail (RFC 6109, 4.5: it is fetched daily).", fetchFix},
	"directory-file-dead":  {Error, "The file with the directory of providers is older than a week", "Certificates that were withdrawn are believed, and new providers are not.", fetchFix},
	"crl-missing":          {Warning, "A list of revoked certificates cannot be had", "With trust.unknown = \"defer\" messages of that CA's providers wait.", "pecd config check --config {config}"},
	"crl-expired":          {Error, "A list of revoked certificates has ended", "With trust.unknown = \"defer\" messages of that CA's providers wait.", "pecd config check --config {config}"},
	"crl-failing":          {Warning, "A list of revoked certificates cannot be fetched again", "When it ends, messages of that CA's providers wait.", "pecd config check --config {config}"},

	// The store.
	"store-missing":    {Error, "The store's directory is not there", "pecd cannot start without its register.", "install -d -o pecd -g pecd -m 0700 {store}"},
	"store-open":       {Warning, "Others can look into the store", "It holds the messages of the users, and the socket by which pecd is governed.", "chmod 0700 {store}"},
	"store-unwritable": {Error, "The store cannot be written", "Nothing is accepted that cannot be registered: all mail waits.", "chmod u+rwx {store}    # " + dropIn},
	"store-owner":      {Error, "Something in the store belongs to another user", "A command that root ran has left it; pecd cannot write it, and does not start.", "chown -R --reference={store} {store}"},
	"store-forgets":    {Error, "The store is on a filesystem in memory", "After a reboot the register that the law asks for is gone.", "move {store} to a disk"},
	"store-doubtful":   {Warning, "The store is on a filesystem of which it is not sure that it syncs", "A crash may lose what pecd has already confirmed to a user.", "move {store} to a local disk (ext4, xfs)"},
	"store-unreadable": {Error, "The store cannot be read", "Outbox and register cannot be looked at; they may be damaged.", "pecd log verify --config {config}"},
	"disk-full":        {Error, "A disk is nearly full", "When it is full, all mail waits at the clients and at other servers.", "df -h {store}"},
	"outbox-old":       {Error, "Signed messages wait for the MTA", "They are certified as accepted and do not go out.", "journalctl -u pecd -g courier"},
	"ledger-overdue":   {Error, "An answer is overdue and the sender does not know", "After 24 hours the sender is owed a timeout notice (RFC 6109, 3.1.6).", "systemctl restart pecd"},

	"seal-none":       {Warning, "The days of the register are not sealed", "The law wants a time stamp on the register daily (DPR 68/2005, art. 10); until then whoever holds the machine can write it anew.", "name a time-stamping authority and its CAs as tsa and tsa_anchors of [seal] in {config}"},
	"seal-late":       {Error, "A day of the register should have been sealed by now", "The law wants a time stamp on the register daily (DPR 68/2005, art. 10).", "pecd log seal --config {config}"},
	"seal-unreadable": {Error, "The sealed days cannot be read", "They are what proves the register.", "ls -l {seals}; seal.path in {config} names the directory"},
	"seal-open":       {Warning, "Others can look at the sealed days", "They hold who wrote to whom, and when, about what.", "chmod 0700 {seals}"},
	"seal-owner":      {Error, "Sealed days belong to another user than the store", "pecd cannot add to them, and no further day is sealed.", "chown -R --reference={store} {seals}"},
	"seal-beside":     {Advice, "The sealed days are on the disk of the store", "One broken disk takes the register and what proves it.", "name a directory of another disk as seal.path in {config} (move what is in {seals} there; " + dropIn + "), or copy both daily: pecd backup"},
	"seal-failing":    {Warning, "Attempts to seal a day fail", "When it lasts, the day is not sealed in time (DPR 68/2005, art. 10).", "journalctl -u pecd -g seal; pecd log seal --config {config}    # where it says that the file system is read-only: " + dropIn},
	"tsa-down":        {Warning, "A time-stamping authority cannot be reached", "Without a time stamp no day of the register is sealed.", "curl -I the addresses of seal.tsa in {config}; behind a proxy set trust.proxy"},
	"witness-failing": {Warning, "A witness does not hear how far the register is", "Until the day is sealed, whoever holds the machine can write it anew unnoticed.", "journalctl -u pecd -g witness; witness.http, witness.syslog and seal.tsa in {config} say who is told"},

	// The daemon.
	"daemon-down":     {Error, "pecd does not run", "Clients hear 451, other servers wait; after a day mail bounces.", "systemctl start pecd; journalctl -u pecd -n 50"},
	"daemon-unready":  {Error, "pecd runs and cannot work", "Messages wait until what it names works again.", "journalctl -u pecd -n 50"},
	"plugin-down":     {Error, "A plugin does not run", "Messages that it should see wait until it does.", "pecd plugin list --config {config}"},
	"plugin-restart":  {Warning, "The plugins of the configuration are not those that run", "The configuration was changed and is not in force.", "systemctl restart pecd"},
	"plugin-unpinned": {Warning, "A plugin has no checksum in the configuration", "Whoever replaces the program sees all mail.", "write the output of sha256sum as sha256 of the plugin in {config}"},
	"clock":           {Error, "The clock cannot be relied on", "The time of acceptance and delivery is what the receipts prove.", "timedatectl set-ntp true; timedatectl timesync-status"},
	"mx":              {Error, "A certified domain has no MX record", "Other providers cannot reach its mailboxes.", "add an MX record that names this server"},
	"dns":             {Warning, "DNS does not answer", "The MTA cannot find other providers.", "resolvectl status"},

	// The canary.
	"canary-refused": {Error, "The canary was not taken", "Users who submit hear the same.", "journalctl -u 'postfix*' -u pecd -n 50"},
	"canary-lost":    {Error, "The canary was taken and not delivered", "Certified messages do not arrive, or their senders get no receipt.", "pecd log search --config {config}; postqueue -c {postfix} -p"},

	// Sockets and ports.
	"socket-missing":     {Error, "A socket of pecd's is not there", permission, "systemctl restart pecd"},
	"socket-stale":       {Error, "Nobody answers at a socket of pecd's", permission, "systemctl restart pecd"},
	"socket-permission":  {Error, "Postfix may not connect to a socket of pecd's", permission, "set socket_group = \"postfix\" and socket_mode = \"0660\" in {config}, and give Postfix the way there: chmod o+x on the directories; then systemctl restart pecd"},
	"socket-chroot":      {Error, "A service of Postfix's cannot reach a socket from its chroot", permission, setupFix},
	"mailboxes-down":     {Error, "The mailbox store does not answer", "Nothing is delivered; messages wait at the MTA.", "systemctl status dovecot; doveconf -n service/lmtp # delivery.store is {mailboxes}"},
	"mailboxes-unread":   {Warning, "What Dovecot's settings are is not known", "Whether it syncs what it says it has stored, and for whom it takes mail, was not looked at.", "doveconf -n > /dev/null # says what is wrong; run the doctor as root"},
	"mailboxes-unsynced": {Error, "Dovecot does not sync what it says it has stored", "After a crash of the machine a delivery receipt stands for a message that is gone.", "remove mail_fsync from Dovecot's configuration (the default is optimized); systemctl reload dovecot"},
	"mailboxes-anybody":  {Warning, "Dovecot takes mail for addresses that do not exist", "Delivery is certified to addresses that nobody reads.", "remove allow_all_users from Dovecot's userdb; systemctl reload dovecot"},
	"sieve":              {Warning, "Rules of users can take away what a receipt calls delivered", "Dovecot says 250 for a message that a script rejects or redirects; it is not in the mailbox.", "in Dovecot's plugin block: sieve_max_redirects = 0 and sieve_extensions = -reject, or no sieve in mail_plugins of protocol lmtp (docs/dovecot.md)"},
	"sieve-discard":      {Advice, "Rules of users can discard mail before it is in the mailbox", "Dovecot says 250 for a message that a script discards; a receipt calls it delivered.", "run Sieve after the delivery (imapsieve), or let users edit no scripts by hand: no managesieve (docs/dovecot.md)"},
	"listener-down":      {Error, "The MTA's listener for signed messages does not answer", "What pecd has accepted does not go out.", "postfix -c {postfix} status; postfix -c {postfix} start"},
	"port-closed":        {Error, "Nobody listens at a port of the MTA's", "Users or other providers cannot send.", "postfix -c {postfix} status; postfix -c {postfix} start"},

	// Postfix: submission.
	"postfix-unreadable": {Error, "Postfix's configuration cannot be read", "It cannot be told whether mail goes through pecd.", "postconf -c {postfix} -n"},
	"submission-missing": {Error, "No service lets users log in and send", "Without it nobody can submit certified mail.", setupFix},
	"submission-milter":  {Error, "pecd's milter is missing at a submission service", uncertify + " Hosting panels do that when they write main.cf anew.", setupFix},
	"submission-accept":  {Error, "Submission goes on without pecd when pecd is away", uncertify, setupFix},
	"milter-order":       {Error, "pecd is not the last milter at a submission service", "pecd takes the message over, so that milters after it see nothing.", setupFix},
	"milter-stray":       {Error, "pecd is called where it has no business", "Mail that a filter hands back passes pecd twice, and what comes in from others is refused for want of a login.", setupFix},
	"signer-before":      {Warning, "A DKIM signer comes before pecd", "It signs what the user sent, not what leaves.", setupFix},
	"signer-handlers":    {Warning, "Plesk signs by DKIM before pecd", "It signs what the user sent, not what leaves; nobody signs what leaves.", "in Plesk, Mail Settings of the domain, clear \"Use DKIM spam protection system to sign outgoing email messages\"; sign with an OpenDKIM at the listener for signed messages (docs/panels.md)"},
	"milter-maps":        {Warning, "smtpd_milter_maps can take pecd's milter away", uncertify, "postconf -c {postfix} -e smtpd_milter_maps="},
	"auth-macro":         {Error, "pecd does not hear who has logged in", "Without a login nothing is certified: every message is refused.", setupFix},
	"no-login":           {Error, "A submission service takes no logins", "Without a login nothing is certified: every message is refused.", "set smtpd_sasl_auth_enable=yes for the service in {postfix}/master.cf"},
	"sender-login":       {Error, "Nobody checks that users send in their own name", "A user could send certified mail in the name of another.", setupFix},
	"sender-table":       {Error, "Postfix checks in whose name users send, and has no table for it", "Without a table every user who has logged in is refused (553).", "name a table of addresses and their logins as smtpd_sender_login_maps in {postfix}/main.cf; or take reject_sender_login_mismatch away and set access.sender_login = \"match\" in {config}"},
	"cleanup-missing":    {Error, "A cleanup service is missing", "Postfix cannot take any mail there.", setupFix},
	"headers-dropped":    {Error, "Postfix drops header fields before pecd sees them", "pecd must see Bcc, to refuse it; otherwise blind copies vanish.", setupFix},
	"original-changed":   {Error, "Postfix changes messages before pecd sees them", "What is certified is not what the user sent.", setupFix},
	"bare-newline":       {Warning, "Lone line feeds are rewritten", "What is certified is not what the user sent.", setupFix},

	// Postfix: port 25.
	"port25-missing": {Error, "No service listens at port 25", "Other providers cannot send to this server.", "add the smtp service to {postfix}/master.cf (docs/postfix.md)"},
	"port25-login":   {Error, "Users can log in at port 25", uncertify, "have users send by a submission port, then for each service that is named: postconf -c {postfix} -P \"smtp/inet/smtpd_sasl_auth_enable=no\" && postfix -c {postfix} reload"},
	"gate-milter":    {Error, "pecd's gate is missing at port 25", "Ordinary mail that mailboxes refuse is bounced to addresses that may be forged.", setupFix},
	"gate-accept":    {Warning, "Port 25 goes on without pecd when pecd is away", "Mail that the gate would refuse is taken.", setupFix},
	"server-tls":     {Error, "Port 25 offers no TLS", "Other providers must send over TLS (RFC 6109, 5.3).", setupFix},
	"ehlo-keywords":  {Error, "Port 25 hides 8BITMIME or STARTTLS", breaks, "postconf -c {postfix} -e smtpd_discard_ehlo_keywords="},

	// Postfix: the listener for signed messages.
	"listener-missing": {Error, "The MTA has no listener for signed messages", "What pecd has accepted cannot go out.", setupFix},
	"listener-open":    {Error, "The listener for signed messages is open to others", "Anybody can send from it, to everywhere.", setupFix},
	"listener-tls":     {Error, "The listener for signed messages demands TLS", "Postfix refuses what pecd hands in (530), and nothing that is certified goes out.", setupFix},
	"listener-loop":    {Error, "The listener for signed messages calls pecd again", "Signed messages come back to pecd and are refused.", setupFix},
	"listener-milter":  {Error, "A milter stands at the listener for signed messages", breaks, setupFix},
	"listener-filter":  {Error, "A content filter stands behind the listener for signed messages", breaks, setupFix},
	"listener-checks":  {Error, "The listener for signed messages checks or rewrites", breaks, setupFix},
	"listener-headers": {Warning, "Postfix drops header fields of signed messages", "The outer header loses what pecd has put there.", setupFix},

	// Postfix: arrival, and main.cf.
	"route":           {Error, "Mail for a certified domain does not go to pecd", "It is delivered without any receipt.", setupFix},
	"route-user":      {Error, "Mail for a mailbox of a certified domain does not go to pecd", "Postfix asks transport_maps for the whole address before the domain; what is for that mailbox is delivered without any receipt.", setupFix},
	"route-unknown":   {Warning, "A table may send mailboxes of a certified domain past pecd", "Postfix asks transport_maps for the whole address before the domain; what is for such a mailbox is delivered without any receipt.", setupFix},
	"copies-skipped":  {Warning, "Certified mail within the provider is not copied", within, "have the mailbox store copy it (Dovecot: a Sieve script of sieve_before with redirect :copy). delivery.direct = false in {config} has this mail pass Postfix, but the listener for signed messages copies nothing either (no_address_mappings)"},
	"filter-skipped":  {Warning, "Certified mail within the provider is not filtered", within, "add a plugin such as clamav to {config} (docs/plugins.md): it sees all that users send. delivery.direct = false has this mail pass Postfix, but nothing may filter what is signed"},
	"domain-refused":  {Error, "The MTA takes no mail for a certified domain", "Other providers hear that the mailboxes do not exist.", setupFix},
	"aliases":         {Error, "Certified addresses are rewritten by aliases", "An envelope counts only for the addresses that it names, and signed messages are not rewritten: what another provider sends to the alias goes on without its receipt, what our own users send there is not delivered.", "postmap -q ADDRESS (or @DOMAIN) on each table of the setting (postconf -c {postfix} virtual_alias_maps); remove the entry"},
	"table":           {Error, "The MTA cannot read a table, or reads an old one", "All mail for which it needs the table waits, or goes where it should not.", "postmap -c {postfix} FILE"},
	"tls-policy":      {Error, "TLS towards other providers is not compulsory", "Certified mail may travel in clear (RFC 6109, 5.3).", setupFix},
	"size-limit":      {Error, "The MTA's size limit is too small", "Large messages are accepted and certified, and then cannot go out.", setupFix},
	"mailbox-limit":   {Error, "Mailboxes may hold less than the largest message", "The service of Postfix's that delivers to them ends with an error, and all ordinary mail for it waits.", setupFix},
	"header-limit":    {Warning, "The MTA cuts or refuses long header fields", breaks, setupFix},
	"line-limit":      {Error, "The MTA cuts or folds long lines", breaks, setupFix},
	"mime-conversion": {Error, "The MTA converts 8-bit parts", breaks, setupFix},
	"content-checks":  {Error, "Postfix looks into messages", breaks, setupFix},
	"header-rewrite":  {Warning, "Postfix completes addresses", "What is certified is not what the user sent.", setupFix},
	"queue-lifetime":  {Error, "The MTA tries for longer than a day", "The queue lives 24 hours (RFC 6109, 2.2.2); the sender is told too late.", setupFix},
	"backoff":         {Warning, "The MTA waits too long between tries", "The last word may be the MTA's bounce and not a signed notice.", setupFix},
	"bounces":         {Error, "Failures do not come back to pecd", "The sender is not told that a message could not be delivered.", "postconf -c {postfix} -e soft_bounce=no smtpd_discard_ehlo_keywords=, and see that master.cf has the bounce service"},
	"recipient-limit": {Warning, "The MTA splits messages to many recipients", "The sender's provider gets several take-charge receipts for one envelope.", setupFix},

	// Sendmail alone.
	"sendmail-unreadable": {Error, "Sendmail's configuration cannot be read", "It cannot be told whether mail goes through pecd.", "m4 {sendmail}/sendmail.mc > /dev/null; sendmail -bt -C {sendmail}/sendmail.cf < /dev/null"},
	"sendmail-restart":    {Warning, "Sendmail does not yet go by its configuration", "What runs is what was configured before.", "systemctl restart sendmail"},
	"socket-unsafe":       {Error, "Everybody may write to a folder above a socket", "Sendmail refuses to use such a socket; it answers every client 451.", "have pecd open its sockets in /run/pecd, or at ports of 127.0.0.1"},
	"queue-unsafe":        {Error, "Sendmail does not write to the disk what it has taken", "A crash loses messages that pecd has certified as accepted.", sendmailFix},
}
