# Where the API token comes from: its setting, or a file that is as private as
# the server's own key and may change at any time.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use POSIX qw(mkfifo);
use PostgreSQL::Test::Utils;
use SwTest;
use Test::More;

my $node = start_server('credentials');
my $sandbox = start_sandbox();
use_sandbox($node, $sandbox);

my $directory = PostgreSQL::Test::Utils::tempdir;
my $file = "$directory/api_token";
my $use_file = "SET sw_guest_token.api_token_file = '$file'";

sub write_file
{
	my ($content, $mode) = @_;

	unlink $file;
	open my $handle, '>', $file or die "could not write $file: $!";
	print $handle $content;
	close $handle;
	chmod $mode, $file;
	return;
}

# Another file, which can replace that one.
sub write_file_aside
{
	open my $handle, '>', "$file.aside" or die "could not write $file.aside: $!";
	print $handle 'PTwrong';
	close $handle;
	chmod 0600, "$file.aside";
	return;
}

# The outcome of a call with the file.
sub outcome
{
	my $session = run_session($node, $use_file, $ONE);

	unlike($session->{err}, qr/\Q$directory\E/, 'the file\'s path is not told');
	return sql_state($session->{err}) || $session->{out};
}

# the file wins over the setting, which has the right token
write_file('PTsandbox', 0600);
is(outcome(), "token true\n", 'the token may come from a file');
write_file('PTwrong', 0600);
is(outcome(), '28000', 'the file wins over the setting');
write_file(" \t\r\nPTsandbox \r\n\n", 0600);
is(outcome(), "token true\n", 'white space around the token is trimmed');

# what it may contain
write_file('', 0600);
is(outcome(), '55000', 'an empty file is refused');
write_file(" \n", 0600);
is(outcome(), '55000', 'a file of white space is refused');
write_file("PTsandbox\nPTsandbox\n", 0600);
is(outcome(), '55000', 'a file of two lines is refused');
write_file("PTsandbox\0", 0600);
is(outcome(), '55000', 'a NUL byte is refused');
write_file('x' x 100_000, 0600);
is(outcome(), '55000', 'a file that is no token is refused');

# how private it must be
foreach my $mode (0400, 0600, 0700)
{
	write_file('PTsandbox', $mode);
	is(outcome(), "token true\n", sprintf('mode %04o is private', $mode));
}
foreach my $mode (0640, 0604, 0660, 0644, 0666, 0610, 0601, 0602, 0620)
{
	write_file('PTsandbox', $mode);
	is(outcome(), '55000', sprintf('mode %04o is refused', $mode));
}
write_file('PTsandbox', 0000);
is(outcome(), '55000', 'a file that cannot be read is refused');

# what it must be
unlink $file;
is(outcome(), '55000', 'a missing file is refused');
mkdir $file;
chmod 0700, $file;
is(outcome(), '55000', 'a directory is refused');
rmdir $file;
mkfifo($file, 0600);
is(outcome(), '55000', 'a FIFO is refused, and does not hold the session up');
unlink $file;
write_file('PTsandbox', 0644);
rename $file, "$file.open";
symlink "$file.open", $file;
is(outcome(), '55000', 'behind a link it is the file that counts');
chmod 0600, "$file.open";
is(outcome(), "token true\n", 'a link to a private file will do');

# rotation needs no reload, in a session that goes on
write_file('PTsandbox', 0600);
my $session = run_session($node, $use_file, $ONE,
	"COPY (SELECT 'PTwrong') TO '$file'", $ONE,
	"COPY (SELECT 'PTsandbox') TO '$file'", $ONE,
	"COPY (SELECT 'PTsandboy') TO '$file'", $ONE,
	"COPY (SELECT 'PTsandbox') TO '$file'", $ONE,
	'RESET sw_guest_token.api_token_file', $ONE);
is($session->{out}, "token true\n" x 4, 'a session reads the file again when it changes');
is(sql_state($session->{err}), '28000 28000', 'and uses what it holds now');

# nor does it when the file has been the same for so long that it is no longer
# opened for each call
write_file('PTsandbox', 0600);
select undef, undef, undef, 0.5;
$session = run_session($node, $use_file, $ONE, $ONE,
	"COPY (SELECT 'PTsandboy') TO '$file'", $ONE,
	"COPY (SELECT 'PTsandbox') TO '$file'", $ONE);
is(sql_state($session->{err}) . " $session->{out}", '28000 ' . "token true\n" x 3,
	'a file that was long the same is read again when it changes');
write_file('PTsandbox', 0600);
write_file_aside();
select undef, undef, undef, 0.5;
$session = run_session($node, $use_file, $ONE,
	"COPY (SELECT) TO PROGRAM 'cat >/dev/null; chmod 644 $file'", $ONE,
	"COPY (SELECT) TO PROGRAM 'cat >/dev/null; chmod 600 $file'", $ONE,
	"COPY (SELECT) TO PROGRAM 'cat >/dev/null; mv $file.aside $file'", $ONE);
is(sql_state($session->{err}) . " $session->{out}", '55000 28000 ' . "token true\n" x 2,
	'and when its mode changes, or another file takes its place');

# a relative path starts in the data directory
$node->append_conf('postgresql.conf', "sw_guest_token.api_token_file = 'guest_token_secret'");
open my $handle, '>', $node->data_dir . '/guest_token_secret' or die $!;
print $handle "PTsandbox\n";
close $handle;
chmod 0600, $node->data_dir . '/guest_token_secret';
$node->restart;
is(run_session($node, $ONE)->{out}, "token true\n", 'a relative path starts in the data directory');

# credentials that change take effect on a kept-alive connection, too
$sandbox->reset;
$session = run_session($node, "SET sw_guest_token.api_token_file = ''", $ONE,
	"SET sw_guest_token.api_token = 'PTother'", $ONE, 'RESET sw_guest_token.api_token', $ONE);
is(sql_state($session->{err}) . " $session->{out}", "28000 token true\ntoken true\n",
	'other credentials are used at once');
is($sandbox->journal->{connections}, 1, 'on the same connection');

done_testing();
