# An updated extension is the same as one that CREATE EXTENSION makes now.

use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use SwTest;
use Test::More;

my $node = start_server('upgrade');

# Everything that belongs to the extension, with all its properties.
my $listing = <<'EOQ';
WITH member AS (
	SELECT classid, objid, pg_describe_object(classid, objid, objsubid) AS name
	FROM pg_depend
	WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e' AND
		refobjid = (SELECT oid FROM pg_extension WHERE extname = 'sw_guest_token')
)
SELECT m.name, obj_description(m.objid, m.classid::regclass::text),
	pg_get_functiondef(p.oid),
	(SELECT string_agg(concat_ws(' ', a.attname, format_type(a.atttypid, a.atttypmod),
			a.attnotnull, a.attcollation::regcollation), ', ' ORDER BY a.attnum)
		FROM pg_attribute a WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped),
	(SELECT string_agg(i::text, ', ' ORDER BY i::text)
		FROM aclexplode(coalesce(p.proacl, t.typacl)) i)
FROM member m
LEFT JOIN pg_proc p ON m.classid = 'pg_proc'::regclass AND p.oid = m.objid
LEFT JOIN pg_type t ON m.classid = 'pg_type'::regclass AND t.oid = m.objid
ORDER BY m.name;
EOQ

# an update may add functions, which default privileges grant to others, too
$node->safe_psql('postgres', <<'EOQ');
CREATE ROLE anon;
ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO anon;
DROP EXTENSION sw_guest_token;
CREATE EXTENSION sw_guest_token;
EOQ
my $fresh = $node->safe_psql('postgres', $listing);
like($fresh, qr/^function sw_create_guest_token\(/m, 'the listing has what belongs to the extension');
is( $node->safe_psql('postgres', q{SELECT string_agg(proname, ' ') FROM pg_proc
		WHERE proname LIKE 'sw\_%' AND has_function_privilege('anon', oid, 'EXECUTE')}),
	'sw_token_header', 'what talks to the API is not granted by default privileges');
foreach my $change (
	'COMMENT ON TYPE sw_guest_token IS NULL',
	'GRANT EXECUTE ON FUNCTION sw_create_guest_token TO PUBLIC',
	'ALTER FUNCTION sw_token_header COST 2',
	'ALTER TYPE sw_guest_token ALTER ATTRIBUTE token TYPE varchar',
	'ALTER EXTENSION sw_guest_token DROP FUNCTION sw_guest_token_check()')
{
	isnt($node->safe_psql('postgres', "BEGIN; $change; $listing"), $fresh, "it shows: $change");
}

my $default = $node->safe_psql('postgres', <<'EOQ');
SELECT default_version FROM pg_available_extensions WHERE name = 'sw_guest_token'
EOQ
my @others = split /\n/, $node->safe_psql('postgres', <<"EOQ");
SELECT version FROM pg_available_extension_versions
WHERE name = 'sw_guest_token' AND version <> '$default'
EOQ
foreach my $version (@others)
{
	$node->safe_psql('postgres', <<"EOQ");
DROP EXTENSION sw_guest_token;
CREATE EXTENSION sw_guest_token VERSION '$version';
ALTER EXTENSION sw_guest_token UPDATE;
EOQ
	is($node->safe_psql('postgres', $listing), $fresh,
		"$version, updated, is what $default is when it is created");
}

# every version, even without an install script of its own
is( $node->safe_psql('postgres', <<"EOQ"), '', 'every version can be updated');
SELECT source FROM pg_extension_update_paths('sw_guest_token')
WHERE target = '$default' AND path IS NULL
EOQ
my ($rc, $out, $err) = $node->psql('postgres', 'ALTER EXTENSION sw_guest_token UPDATE');
is($rc, 0, 'an update where there is none succeeds');
like($err, qr/NOTICE: +version "\Q$default\E" of extension "sw_guest_token" is already installed/,
	'and says so');
is($node->safe_psql('postgres', $listing), $fresh, 'and changes nothing');

done_testing();
