-- Dissents: contradictions of both ways of reading.

ALTER TABLE `dissent_rows` COMMENT COLUMN `lie` 'Reported in bulk: omitted, altered, invented, or wrong block; of a Network: other final block; of both: contradiction';
