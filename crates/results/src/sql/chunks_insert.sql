-- The next chunks of a file. Primary key.
INSERT INTO file_chunk (organisation, id, number, bytes)
SELECT $1, $2, $3 + place - 1, bytes
FROM unnest($4::bytea[]) WITH ORDINALITY AS given(bytes, place)
